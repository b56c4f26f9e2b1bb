//! One real Apache Kafka (KRaft, one process) for the whole run, and more for the tests that harm theirs.

use super::{eventually, installed, java, port::ReservedPort, process::Process, unique};
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

/// How long a broker may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The broker that all tests share, started by the first that asks. None: see [`kafka_or_skip`](crate::kafka_or_skip).
pub fn shared() -> Option<&'static Broker> {
    static SHARED: LazyLock<Option<Broker>> = LazyLock::new(|| startable().then(|| Broker::start(&[])));
    SHARED.as_ref()
}

/// A broker of the test's own, with further lines for its `server.properties`.
pub fn own(properties: &[(&str, &str)]) -> Option<Broker> {
    startable().then(|| Broker::start(properties))
}

/// False where Java or Maven is missing, see [`installed`].
pub fn startable() -> bool {
    installed(java::missing())
}

pub struct Broker {
    ports: Ports,
    folder: PathBuf,
    process: Mutex<Option<Process>>,
}

/// Its own also while it is down: whoever listened there meanwhile, another test's mock of Kafka for example, would
/// acknowledge what is meant for this one.
struct Ports {
    plain: ReservedPort,
    ssl: ReservedPort,
    sasl_plain: ReservedPort,
    sasl_ssl: ReservedPort,
    controller: ReservedPort,
}

impl Broker {
    fn start(properties: &[(&str, &str)]) -> Self {
        let broker = Self::prepare(properties);
        broker.restart();
        broker
    }

    /// A broker with an address that does not run yet: [`Broker::restart`] starts it.
    pub fn prepare(properties: &[(&str, &str)]) -> Self {
        let ports = Ports {
            plain: ReservedPort::new(),
            ssl: ReservedPort::new(),
            sasl_plain: ReservedPort::new(),
            sasl_ssl: ReservedPort::new(),
            controller: ReservedPort::new(),
        };
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("broker"));
        let log = folder.join("log");
        fs::create_dir_all(&log).unwrap();
        for file in fs::read_dir(java::formatted()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), log.join(file.file_name())).unwrap();
        }
        let mut text = server_properties(&ports, &log);
        for (name, value) in properties {
            text += &format!("{name}={value}\n");
        }
        fs::write(folder.join("server.properties"), text).unwrap();
        Self { ports, folder, process: Mutex::new(None) }
    }

    pub fn bootstrap(&self) -> String {
        self.ports.plain.address().to_string()
    }

    pub fn ssl_bootstrap(&self) -> String {
        self.ports.ssl.address().to_string()
    }

    pub fn sasl_plain_bootstrap(&self) -> String {
        self.ports.sasl_plain.address().to_string()
    }

    pub fn sasl_ssl_bootstrap(&self) -> String {
        self.ports.sasl_ssl.address().to_string()
    }

    /// Starts the broker, on the same ports and data as before, and waits until it serves.
    pub fn restart(&self) {
        self.start_in_background();
        self.wait_until_it_serves();
    }

    pub fn start_in_background(&self) {
        let mut process = self.process.lock().unwrap();
        assert!(process.is_none(), "the broker runs already");
        let output = File::options().create(true).append(true).open(self.output()).unwrap();
        let mut command = java::java("kafka.Kafka");
        command.arg(self.folder.join("server.properties"));
        command.stdout(output.try_clone().unwrap()).stderr(output);
        *process = Some(Process::spawn(&mut command, &self.folder));
    }

    fn wait_until_it_serves(&self) {
        let start = Instant::now();
        let client: BaseConsumer = self.client().create().unwrap();
        loop {
            let metadata = client.fetch_metadata(None, Duration::from_millis(500));
            if metadata.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
                return;
            }
            let output = || fs::read_to_string(self.output()).unwrap_or_default();
            let exited = self.process.lock().unwrap().as_mut().is_none_or(Process::has_exited);
            assert!(!exited, "the broker ended\n{}", output());
            assert!(start.elapsed() < START_LIMIT, "the broker does not answer\n{}", output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process.lock().unwrap().take().unwrap().kill();
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.process.lock().unwrap().as_ref().unwrap().signal("STOP");
    }

    pub fn thaw(&self) {
        self.process.lock().unwrap().as_ref().unwrap().signal("CONT");
    }

    /// A topic that no other test uses.
    pub async fn new_topic(&self, partitions: i32, configs: &[(&str, &str)]) -> String {
        let topic = unique("topic");
        self.create_topic(&topic, partitions, configs).await;
        topic
    }

    pub async fn create_topic(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let new = configs
            .iter()
            .fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), |new, (name, value)| {
                new.set(name, value)
            });
        let results = self.admin().create_topics(&[new], &admin_options()).await.unwrap();
        results.into_iter().next().unwrap().unwrap();
        self.wait_until_visible(topic, &[]).await;
    }

    /// Makes topics of one partition.
    pub async fn create_topics(&self, topics: &[String]) {
        let new: Vec<_> =
            topics.iter().map(|topic| NewTopic::new(topic, 1, TopicReplication::Fixed(1))).collect();
        for result in self.admin().create_topics(&new, &admin_options()).await.unwrap() {
            result.unwrap();
        }
        if let Some(last) = topics.last() {
            self.wait_until_visible(last, &[]).await;
        }
    }

    /// Raises the topic's number of partitions to `count`.
    pub async fn add_partitions(&self, topic: &str, count: usize) {
        let more = NewPartitions::new(topic, count);
        let results = self.admin().create_partitions([&more], &admin_options()).await.unwrap();
        results.into_iter().next().unwrap().unwrap();
    }

    /// Sets the topic's `max.message.bytes`.
    pub async fn limit_topic(&self, topic: &str, max_message_bytes: usize) {
        let bytes = max_message_bytes.to_string();
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
        let altered = self.admin().alter_configs([&config], &admin_options()).await.unwrap();
        altered.into_iter().next().unwrap().unwrap();
    }

    /// The topic's setting of that name.
    pub async fn topic_config(&self, topic: &str, name: &str) -> String {
        let topic = ResourceSpecifier::Topic(topic);
        let described = self.admin().describe_configs([&topic], &admin_options()).await.unwrap();
        let described = described.into_iter().next().unwrap().unwrap();
        described.entry_map()[name].value.clone().unwrap()
    }

    pub async fn delete_topic(&self, topic: &str) {
        let results = self.admin().delete_topics(&[topic], &admin_options()).await.unwrap();
        results.into_iter().next().unwrap().unwrap();
    }

    pub fn partition_count(&self, topic: &str) -> usize {
        let client: BaseConsumer = self.client().create().unwrap();
        let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        metadata.topics()[0].partitions().len()
    }

    pub fn topic_exists(&self, topic: &str) -> bool {
        let client: BaseConsumer = self.client().create().unwrap();
        let metadata = client.fetch_metadata(None, Duration::from_secs(10)).unwrap();
        metadata.topics().iter().any(|known| known.name() == topic)
    }

    /// Lets the restricted user do `operation` on the topic.
    pub async fn allow_restricted(&self, topic: &str, operation: Operation) {
        let request = create_acl_request(topic, &format!("User:{}", java::RESTRICTED.0), operation);
        let mut connection = TcpStream::connect(self.bootstrap()).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection.write_all(&request).unwrap();
        // length, correlation id, throttle time, count of results, error code of the first
        let mut response = [0; 18];
        connection.read_exact(&mut response).unwrap();
        assert_eq!(response[16..], [0, 0], "the access control entry was refused");
        let (username, password) = java::RESTRICTED;
        let restricted = [
            ("bootstrap.servers", self.sasl_plain_bootstrap()),
            ("security.protocol", "sasl_plaintext".into()),
            ("sasl.mechanisms", "PLAIN".into()),
            ("sasl.username", username.into()),
            ("sasl.password", password.into()),
        ];
        self.wait_until_visible(topic, &restricted).await;
    }

    /// The controller confirms a change before the broker has it; on a busy machine that shows.
    async fn wait_until_visible(&self, topic: &str, properties: &[(&str, String)]) {
        let mut config = self.client();
        for (name, value) in properties {
            config.set(*name, value);
        }
        let client: BaseConsumer = config.create().unwrap();
        eventually("the topic is visible", Duration::from_secs(10), async || {
            let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
            let topic = &metadata.topics()[0];
            let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
            (topic.error().is_none() && led).then_some(())
        })
        .await;
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        // a broker that is not up yet is tried again soon, and without a line a try
        config.set("reconnect.backoff.max.ms", "200").set("log_level", "0");
        config
    }

    fn output(&self) -> PathBuf {
        self.folder.join("output")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.lock().unwrap().take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Kafka's codes of access control operations (KIP-140).
#[derive(Clone, Copy)]
pub enum Operation {
    Write = 4,
    Describe = 8,
}

/// A CreateAcls request, version 1 (KIP-140, KIP-290), with one entry: a literal topic, any host, allow.
fn create_acl_request(topic: &str, principal: &str, operation: Operation) -> Vec<u8> {
    const CREATE_ACLS: i16 = 30;
    const TOPIC: u8 = 2;
    const LITERAL: u8 = 3;
    const ALLOW: u8 = 3;
    let mut body = Vec::new();
    let string = |body: &mut Vec<u8>, text: &str| {
        body.extend((text.len() as i16).to_be_bytes());
        body.extend(text.as_bytes());
    };
    body.extend(CREATE_ACLS.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    string(&mut body, "tests");
    body.extend(1_i32.to_be_bytes());
    body.push(TOPIC);
    string(&mut body, topic);
    body.push(LITERAL);
    string(&mut body, principal);
    string(&mut body, "*");
    body.extend([operation as u8, ALLOW]);
    let mut request = (body.len() as i32).to_be_bytes().to_vec();
    request.extend(body);
    request
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)))
}

fn server_properties(ports: &Ports, log: &Path) -> String {
    let Ports { plain, ssl, sasl_plain, sasl_ssl, controller } = ports;
    let [plain, ssl, sasl_plain, sasl_ssl, controller] =
        [plain, ssl, sasl_plain, sasl_ssl, controller].map(ReservedPort::number);
    let listeners = format!(
        "PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{ssl},\
         SASL_PLAINTEXT://127.0.0.1:{sasl_plain},SASL_SSL://127.0.0.1:{sasl_ssl}"
    );
    let (log, key_store, password) = (log.display(), java::key_store(), java::STORE_PASSWORD);
    let key_store = key_store.display();
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={log}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# records may bear old timestamps
log.retention.ms=-1
num.network.threads=2
num.io.threads=4
# a killed broker is welcome again soon
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
ssl.keystore.type=PKCS12
ssl.keystore.location={key_store}
ssl.keystore.password={password}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{}
",
        java::WRITER.0
    );
    let users: String = [java::WRITER, java::RESTRICTED]
        .iter()
        .map(|(name, password)| format!(" user_{name}=\"{password}\""))
        .collect();
    let security = "org.apache.kafka.common.security";
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        text += &format!(
            "listener.name.{listener}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required{users};\n"
        );
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            text += &format!(
                "listener.name.{listener}.{mechanism}.sasl.jaas.config={security}.scram.ScramLoginModule required;\n"
            );
        }
    }
    text
}

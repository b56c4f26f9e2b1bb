//! A way to a real broker on which answers come late, are changed or are lost, requests are refused, and connections are
//! cut. It says what went by.

use super::{
    broker::{self, Broker},
    protocol::{self, INIT_PRODUCER_ID, METADATA, PRODUCE, Produce, ProduceAnswer, RequestHead},
};
use std::{
    collections::HashMap,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

/// Lives as long as the test process.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What becomes of a Produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers with this error code. The broker never sees the request.
    Refuse(i16),
    /// The broker does what it is asked; its answer gets this error code, and no offset.
    Rewrite(i16),
    /// The broker does what it is asked; its answer is lost with the connection.
    Lose,
}

/// One Produce request, and what was said to it.
#[derive(Debug, Clone)]
pub struct Passed {
    pub produce: Produce,
    /// None where the broker never saw the request.
    pub broker: Option<ProduceAnswer>,
    /// The code that the producer was told; None where it was told nothing.
    pub told: Option<i16>,
}

/// A topic, or one partition of it.
pub struct Place {
    topic: String,
    partition: Option<i32>,
}

impl From<&str> for Place {
    fn from(topic: &str) -> Self {
        Self { topic: topic.into(), partition: None }
    }
}

impl From<(&str, i32)> for Place {
    fn from((topic, partition): (&str, i32)) -> Self {
        Self { topic: topic.into(), partition: Some(partition) }
    }
}

/// A broker that all clients reach through a proxy, both of the test's own. None: see [`broker::own`].
pub fn own() -> Option<(Proxy, Broker)> {
    let proxy = Proxy::listen();
    let advertised = format!("PLAINTEXT://{}", proxy.address());
    let kafka = broker::startable().then(|| Broker::prepare(&[("advertised.listeners", &advertised)]))?;
    proxy.shared.target.set(kafka.bootstrap()).unwrap();
    kafka.restart();
    Some((proxy, kafka))
}

/// The same for tests that harm nothing but their own topics. None: see [`broker::shared`].
pub fn shared() -> Option<&'static (Proxy, Broker)> {
    static SHARED: LazyLock<Option<(Proxy, Broker)>> = LazyLock::new(own);
    SHARED.as_ref()
}

#[derive(Default)]
struct Shared {
    target: OnceLock<String>,
    state: Mutex<State>,
    log: Mutex<Vec<Passed>>,
}

#[derive(Default)]
struct State {
    delay: Duration,
    /// Further, of the answers to what is produced to a topic.
    delays: HashMap<String, Duration>,
    faults: Vec<(Place, Fault, usize)>,
    /// Of the producers to come, and of how many.
    epoch: Option<(i16, usize)>,
    is_cut: bool,
    /// No broker is listed.
    hides_brokers: bool,
    /// After a Produce request for this topic nothing more of its connection is read for so long, once.
    stall: Option<(String, Duration)>,
    /// Both ends of each connection.
    open: Vec<TcpStream>,
}

impl Proxy {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // a connection that cannot be passed on ends
                let _ = accepting.accept(client);
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How late each answer is from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// How late each answer to a Produce request for this topic is from now on.
    pub fn delay_topic(&self, topic: &str, delay: Duration) {
        self.shared.state().delays.insert(topic.into(), delay);
    }

    /// Does this to the next `count` Produce requests there.
    pub fn inject(&self, place: impl Into<Place>, fault: Fault, count: usize) {
        self.shared.state().faults.push((place.into(), fault, count));
    }

    /// Nothing is done to this topic any more.
    pub fn heal(&self, topic: &str) {
        let mut state = self.shared.state();
        state.delays.remove(topic);
        state.faults.retain(|(place, ..)| place.topic != topic);
    }

    /// After the next Produce request for this topic nothing more of its connection is read for so long.
    pub fn stall_after(&self, topic: &str, time: Duration) {
        self.shared.state().stall = Some((topic.into(), time));
    }

    /// The next `count` producers get this epoch with their id.
    pub fn start_epoch(&self, epoch: i16, count: usize) {
        self.shared.state().epoch = Some((epoch, count));
    }

    /// Whether brokers are left out of what clients are told, as those are that have started and are not ready yet.
    pub fn hide_brokers(&self, hide: bool) {
        self.shared.state().hides_brokers = hide;
    }

    /// The Produce requests for this topic, by the time of their answers.
    pub fn log(&self, topic: &str) -> Vec<Passed> {
        let log = self.shared.log();
        log.iter().filter(|passed| passed.produce.topic == topic).cloned().collect()
    }

    /// How many Produce requests for this topic were answered with an error, by the broker or here.
    pub fn errors(&self, topic: &str) -> usize {
        let log = self.shared.log();
        let is_error =
            |passed: &&Passed| passed.produce.topic == topic && passed.told.is_some_and(|code| code != 0);
        log.iter().filter(is_error).count()
    }

    /// Every connection ends, and each new one at once.
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.is_cut = true;
        for end in state.open.drain(..) {
            // it may have ended by itself
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.shared.state().is_cut = false;
    }
}

/// A request that is to be answered.
struct Pending {
    head: RequestHead,
    received: Instant,
    produce: Option<(Produce, Option<Fault>)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Vec<Passed>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, client: TcpStream) -> Option<()> {
        let broker = TcpStream::connect(self.target.get()?).ok()?;
        for end in [&client, &broker] {
            end.set_nodelay(true).ok()?;
        }
        let ends = (client.try_clone().ok()?, broker.try_clone().ok()?);
        {
            let mut state = self.state();
            // under the lock: nothing is open once `cut` has returned
            if state.is_cut {
                return None;
            }
            state.open.extend([client.try_clone().ok()?, broker.try_clone().ok()?]);
        }
        let (pending, answered) = mpsc::channel();
        let shared = Arc::clone(self);
        thread::spawn(move || {
            shared.pass_requests(ends.0, ends.1, |request| pending.send(request).ok());
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let (mut broker, mut client) = (broker, client);
            // as a broker does, in the order of the requests
            shared.pass_answers(&mut broker, &mut client, &answered);
            close(&broker, &client);
        });
        Some(())
    }

    /// Until one of the two ends, or the client sends what is not understood.
    fn pass_requests(
        &self,
        mut client: TcpStream,
        mut broker: TcpStream,
        expect: impl Fn(Pending) -> Option<()>,
    ) {
        let mut pass = || {
            let request = protocol::read_message(&mut client)?;
            let (head, received) = (RequestHead::read(&request)?, Instant::now());
            let produce = if head.kind == PRODUCE { Some(Produce::read(&request)?) } else { None };
            let produce = produce.map(|produce| {
                let fault = self.state().fault(&produce);
                (produce, fault)
            });
            let is_refused = matches!(produce, Some((_, Some(Fault::Refuse(_)))));
            let stall = produce
                .as_ref()
                .and_then(|(produce, _)| self.state().stall.take_if(|(topic, _)| *topic == produce.topic));
            expect(Pending { head, received, produce })?;
            if !is_refused {
                protocol::write_message(&mut broker, &request).ok()?;
            }
            if let Some((_, time)) = stall {
                thread::sleep(time);
            }
            Some(())
        };
        while pass().is_some() {}
        close(&client, &broker);
    }

    fn pass_answers(
        &self,
        broker: &mut TcpStream,
        client: &mut TcpStream,
        pending: &Receiver<Pending>,
    ) -> Option<()> {
        loop {
            let Pending { head, received, produce } = pending.recv().ok()?;
            let (produce, fault) = produce.unzip();
            let mut answer = match (&produce, fault.flatten()) {
                (Some(produce), Some(Fault::Refuse(code))) => produce.refusal(head.correlation, code),
                _ => protocol::read_message(broker)?,
            };
            if protocol::correlation(&answer)? != head.correlation {
                return None;
            }
            let delay = self.state().delay_of(produce.as_ref());
            thread::sleep((received + delay).saturating_duration_since(Instant::now()));
            if head.kind == INIT_PRODUCER_ID {
                self.state().replace_epoch(&mut answer, head.version);
            }
            if head.kind == METADATA && self.state().hides_brokers {
                protocol::remove_brokers(&mut answer)?;
            }
            if let Some(produce) = produce {
                let passed = pass_answer(produce, fault.flatten(), &mut answer)?;
                let is_lost = passed.told.is_none();
                self.log().push(passed);
                if is_lost {
                    return None;
                }
            }
            protocol::write_message(client, &answer).ok()?;
        }
    }
}

/// Does to the answer what the fault says.
fn pass_answer(produce: Produce, fault: Option<Fault>, answer: &mut [u8]) -> Option<Passed> {
    let read = ProduceAnswer::read(answer)?;
    let (broker, told) = match fault {
        None => (Some(read), Some(read.code)),
        Some(Fault::Refuse(code)) => (None, Some(code)),
        Some(Fault::Rewrite(code)) => {
            read.replace(answer, code);
            (Some(read), Some(code))
        }
        Some(Fault::Lose) => (Some(read), None),
    };
    Some(Passed { produce, broker, told })
}

impl State {
    fn fault(&mut self, produce: &Produce) -> Option<Fault> {
        let (_, fault, left) = self.faults.iter_mut().find(|(place, _, left)| {
            let is_there = place.partition.is_none_or(|partition| partition == produce.partition);
            *left > 0 && place.topic == produce.topic && is_there
        })?;
        *left -= 1;
        Some(*fault)
    }

    fn delay_of(&self, produce: Option<&Produce>) -> Duration {
        let topic = produce.and_then(|produce| self.delays.get(&produce.topic));
        self.delay + topic.copied().unwrap_or_default()
    }

    fn replace_epoch(&mut self, answer: &mut [u8], version: i16) {
        if let Some((epoch, left @ 1..)) = &mut self.epoch
            && protocol::replace_epoch(answer, version, *epoch).is_some()
        {
            *left -= 1;
        }
    }
}

fn close(one: &TcpStream, other: &TcpStream) {
    for end in [one, other] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

//! The settings as a whole: faults of all groups, relations, and `.env.example`.

use super::*;
use std::{net::IpAddr, time::Duration};

const FLAGS: Overrides = Overrides { embedded: false };
const EMBEDDED: Overrides = Overrides { embedded: true };

fn load_with(overrides: Overrides, variables: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), String> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(variables, overrides).map_err(|faults| faults.to_string())
}

fn config(variables: &[(&str, &str)]) -> Config {
    load_with(FLAGS, variables).expect("legal settings").0
}

fn faults(variables: &[(&str, &str)]) -> String {
    load_with(FLAGS, variables).expect_err("faulty settings")
}

#[test]
fn nothing_set_gives_the_defaults() {
    assert_eq!(format!("{:?}", config(&[])), format!("{:?}", Config::default()));
}

#[test]
fn an_empty_or_blank_variable_counts_as_unset() {
    let blank: Vec<_> = variable_names().into_iter().map(|name| (name, "  ".to_owned())).collect();
    let (config, warnings) = Config::load(blank, FLAGS).expect("legal settings");
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    assert!(warnings.is_empty());
}

#[test]
fn values_reach_their_fields() {
    let config = config(&[
        ("PORT", " 8080 "),
        ("HOST", "::"),
        ("LOG_LEVEL", "warn"),
        ("LOG_FORMAT", "JSON"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1, b"),
        ("KAFKA_BROKER", "a:1,b:9092"),
        ("KAFKA_LINGER_MS", "0.5"),
        ("KAFKA_CONNECT_RETRIES", "7"),
        ("KAFKA_COMPRESSION", "ZSTD"),
        ("KAFKA_TOPIC_REPLICATION_FACTOR", "-1"),
        ("KAFKA_TOPIC_MIN_INSYNC_REPLICAS", "2"),
        ("LOG_TOPIC", "logs"),
        ("PARTITIONER", "tenant"),
        ("ENRICH_MESSAGES", "off"),
        ("RECORD_HEADERS", "none"),
        ("MAX_BODY_BYTES", "1MiB"),
        ("SHUTDOWN_DELAY_MS", "0"),
        ("KAFKA_PROPERTY_SOCKET_NAGLE_DISABLE", "true"),
        ("DELIVERY", "durable"),
        ("SPOOL_DIR", "/var/spool/inlet"),
        ("INSTANCE_ID", "inlet-0"),
    ]);
    assert_eq!(config.http.port, 8080);
    assert_eq!(config.http.host, "::".parse::<IpAddr>().expect("an address"));
    assert_eq!(config.http.shutdown_delay, Duration::ZERO);
    assert_eq!(config.log.level.as_deref(), Some("warn"));
    assert_eq!(config.log.format, Some(LogFormat::Json));
    assert_eq!(config.kafka.brokers, ["a:1", "b:9092"]);
    assert!(!config.kafka.embedded);
    assert_eq!(config.kafka.linger_ms, 0.5);
    assert_eq!(config.kafka.connect_retries, Some(7));
    assert_eq!(config.kafka.compression, Compression::Zstd);
    assert_eq!(config.kafka.topic_replication_factor, -1);
    assert_eq!(config.kafka.topic_min_insync_replicas, Some(2));
    assert_eq!(config.kafka.partitioner, Partitioner::Tenant);
    assert_eq!(config.kafka.properties["socket.nagle.disable"], "true");
    assert_eq!(config.topics.logs.as_str(), "logs");
    assert!(!config.records.enrich_messages);
    assert_eq!(config.records.headers, RecordHeaders::NONE);
    assert_eq!(config.limits.max_body_bytes, 1 << 20);
    assert_eq!(config.spool.expect("durable").directory, Path::new("/var/spool/inlet"));
    assert_eq!(config.instance_id.as_str(), "inlet-0");
}

#[test]
fn every_fault_of_every_group_is_reported_in_one_run() {
    let text = faults(&[
        ("PORT", "65536"),
        ("LOG_LEVEL", "inof"),
        ("KAFKA_BROKERS", "kafka:port"),
        ("KAFKA_PROPERTY_ACKS", "1"),
        ("MAX_BODY_BYTES", "0"),
        ("RECORD_HEADERS", "x"),
        ("EVENTS_TOPIC", "a b"),
    ]);
    let mut variables: Vec<_> = text.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    variables.sort_unstable();
    assert_eq!(
        variables,
        [
            "EVENTS_TOPIC",
            "KAFKA_BROKERS",
            "KAFKA_PROPERTY_ACKS",
            "LOG_LEVEL",
            "MAX_BODY_BYTES",
            "PORT",
            "RECORD_HEADERS"
        ]
    );
}

#[test]
fn every_variable_is_read_by_its_own_name() {
    for name in variable_names() {
        // not legal for any of them: a control character, an unknown word, and a relation that is not met
        let text = faults(&[(&name, "no\u{1}thing legal")]);
        assert!(text.lines().any(|line| line.starts_with(&format!("{name}: "))), "{name}: {text}");
    }
}

#[test]
fn a_service_link_in_port_is_said_to_be_one() {
    assert!(faults(&[("PORT", "tcp://10.0.0.1:80")]).contains("Kubernetes service link"));
}

#[test]
fn two_names_of_the_brokers_that_differ_are_a_fault() {
    let text = faults(&[("KAFKA_BROKERS", "a:1"), ("KAFKA_BROKER", "b:1")]);
    assert_eq!(text, "KAFKA_BROKER: it is set as KAFKA_BROKERS is, to other brokers; keep one of the two");
}

#[test]
fn embedded_listens_on_this_machine_alone_unless_host_is_set() {
    for (overrides, variables) in [(EMBEDDED, vec![]), (FLAGS, vec![("KAFKA_BROKERS", "embedded")])] {
        let (config, _) = load_with(overrides, &variables).expect("legal settings");
        assert!(config.kafka.embedded && config.kafka.brokers.is_empty());
        assert_eq!(config.http.host.to_string(), "127.0.0.1");
    }
    let (config, _) = load_with(EMBEDDED, &[("HOST", "0.0.0.0")]).expect("legal settings");
    assert_eq!(config.http.host.to_string(), "0.0.0.0");
}

#[test]
fn embedded_refuses_real_brokers_and_credentials() {
    for variables in [
        &[("KAFKA_BROKERS", "kafka:9092")][..],
        &[("KAFKA_BROKER", "localhost:9092")],
        &[("KAFKA_SSL", "true")],
        &[("KAFKA_SASL_MECHANISM", "plain"), ("KAFKA_SASL_USERNAME", "u"), ("KAFKA_SASL_PASSWORD", "p")],
    ] {
        assert!(load_with(EMBEDDED, variables).is_err(), "{variables:?}");
    }
}

#[test]
fn relations_between_settings_are_held() {
    for (variables, variable) in [
        (&[("SHUTDOWN_DELAY_MS", "5000")][..], "SHUTDOWN_TIMEOUT_MS"),
        (&[("SHUTDOWN_TIMEOUT_MS", "9000")], "KAFKA_DELIVERY_TIMEOUT_MS"),
        (&[("KAFKA_DELIVERY_TIMEOUT_MS", "2999")], "KAFKA_DELIVERY_TIMEOUT_MS"),
        (&[("KAFKA_LINGER_MS", "8000")], "KAFKA_LINGER_MS"),
        (&[("KAFKA_TOPIC_MIN_INSYNC_REPLICAS", "2")], "KAFKA_TOPIC_MIN_INSYNC_REPLICAS"),
        (
            &[("KAFKA_TOPIC_MIN_INSYNC_REPLICAS", "4"), ("KAFKA_TOPIC_REPLICATION_FACTOR", "3")],
            "KAFKA_TOPIC_MIN_INSYNC_REPLICAS",
        ),
        (&[("MAX_BODY_BYTES", "17MiB")], "MAX_IN_FLIGHT_BYTES"),
        (&[("DELIVERY", "durable")], "SPOOL_DIR"),
        (
            &[
                ("DELIVERY", "durable"),
                ("SPOOL_DIR", "spool"),
                ("SPOOL_MAX_BYTES", "16MiB"),
                ("MAX_BODY_BYTES", "8388609"),
            ],
            "SPOOL_MAX_BYTES",
        ),
        (&[("KAFKA_SASL_USERNAME", "me")], "KAFKA_SASL_USERNAME"),
        (&[("KAFKA_SASL_PASSWORD", "p")], "KAFKA_SASL_PASSWORD"),
        (&[("KAFKA_SASL_MECHANISM", "PLAIN"), ("KAFKA_SASL_USERNAME", "me")], "KAFKA_SASL_PASSWORD"),
        (&[("KAFKA_SSL", "false"), ("KAFKA_SSL_CA_LOCATION", "Cargo.toml")], "KAFKA_SSL_CA_LOCATION"),
        (&[("KAFKA_SSL_KEY_PASSWORD", "p")], "KAFKA_SSL_KEY_PASSWORD"),
        (&[("KAFKA_SSL", "true"), ("KAFKA_SSL_KEY_LOCATION", "Cargo.toml")], "KAFKA_SSL_KEY_LOCATION"),
        (&[("KAFKA_SSL", "true"), ("KAFKA_SSL_CA_LOCATION", "/no/such.pem")], "KAFKA_SSL_CA_LOCATION"),
    ] {
        let text = faults(variables);
        assert!(
            text.starts_with(&format!("{variable}: ")) && text.lines().count() == 1,
            "{variables:?}: {text}"
        );
    }
}

#[test]
fn a_relation_with_a_faulty_setting_says_nothing() {
    let text = faults(&[("SHUTDOWN_TIMEOUT_MS", "soon"), ("KAFKA_DELIVERY_TIMEOUT_MS", "30000")]);
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn tls_and_sasl_are_taken_together() {
    let config = config(&[
        ("KAFKA_SSL", "yes"),
        ("KAFKA_SSL_CA_LOCATION", "src"),
        ("KAFKA_SSL_CERTIFICATE_LOCATION", "Cargo.toml"),
        ("KAFKA_SSL_KEY_LOCATION", "Cargo.lock"),
        ("KAFKA_SASL_MECHANISM", "scram-sha-512"),
        ("KAFKA_SASL_USERNAME", "me"),
        ("KAFKA_SASL_PASSWORD", " kept as it is "),
    ]);
    let sasl = config.kafka.sasl.expect("SASL");
    assert_eq!(sasl.mechanism, SaslMechanism::ScramSha512);
    assert_eq!(sasl.password.expose(), " kept as it is ");
    let tls = config.kafka.tls.expect("TLS");
    assert_eq!(tls.key_location, Some("Cargo.lock".into()));
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = [
        ("KAFKA_SSL", "true"),
        ("KAFKA_SSL_CERTIFICATE_LOCATION", "Cargo.toml"),
        ("KAFKA_SSL_KEY_LOCATION", "Cargo.toml"),
        ("KAFKA_SSL_KEY_PASSWORD", "hunter2"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "me"),
        ("KAFKA_SASL_PASSWORD", "hunter2"),
    ];
    assert!(!format!("{:?}", config(&secrets)).contains("hunter2"));
    let text =
        faults(&[&secrets[3..4], &secrets[6..], &[("KAFKA_PROPERTY_SASL_PASSWORD", "hunter2")]].concat());
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_password_with_a_line_break_at_its_end_is_warned_of_and_kept() {
    let sasl = [
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "u"),
        ("KAFKA_SASL_PASSWORD", "hunter2\n"),
    ];
    let (config, warnings) = load_with(FLAGS, &sasl).unwrap();
    assert_eq!(config.kafka.sasl.unwrap().password.expose(), "hunter2\n");
    let [warning] = &*warnings else { panic!("{warnings:?}") };
    let warning = warning.to_string();
    assert!(warning.starts_with("KAFKA_SASL_PASSWORD ends with a line break"), "{warning}");
    assert!(!warning.contains("hunter2"));
}

#[test]
fn a_misspelt_variable_and_a_lifted_guarantee_are_warned_of() {
    let (_, warnings) =
        load_with(FLAGS, &[("KAFKA_BROKRES", "x"), ("KAFKA_PORT", "tcp://x"), ("KAFKA_IDEMPOTENCE", "no")])
            .expect("legal settings");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

/// `NAME=value` lines of `.env.example`, commented out or not.
fn example() -> Vec<(String, String)> {
    include_str!("../../.env.example")
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('='))
        .filter(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .filter(|(name, _)| !name.starts_with("KAFKA_PROPERTY_"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_example_file_lists_every_variable_once_and_no_other() {
    let mut listed: Vec<_> = example().into_iter().map(|(name, _)| name).collect();
    let mut known = variable_names();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[test]
fn the_example_file_shows_the_defaults() {
    let (config, _) = Config::load(example(), FLAGS).expect("legal settings");
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

#[test]
fn the_settings_of_the_kubernetes_manifests_are_legal() {
    for manifest in
        [include_str!("../../deploy/kubernetes.yaml"), include_str!("../../deploy/kubernetes-durable.yaml")]
    {
        let lines = manifest.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let variables: Vec<_> = lines
            .clone()
            .zip(lines.skip(1))
            .filter_map(|(name, value)| {
                Some((name.strip_prefix("- name: ")?, value.strip_prefix("value: ")?))
            })
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect();
        assert!(variables.len() >= 4, "{variables:?}");
        for (name, _) in &variables {
            assert!(variable_names().iter().any(|known| known == name), "{name}");
        }
        config(&variables);
    }
}

#[test]
fn in_durable_mode_the_producer_never_gives_up() {
    assert!(!Config::default().kafka.never_gives_up);
    let durable = config(&[("DELIVERY", "durable"), ("SPOOL_DIR", "/spool")]);
    assert!(durable.kafka.never_gives_up);
}

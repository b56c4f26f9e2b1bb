//! `--embedded`: everything in one process, with nothing installed.

use crate::support::{
    app::{Service, run},
    consumer, in_time, process,
};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

async fn start() -> Service {
    let service = Service::spawn_with(&["--embedded"], &[]).await;
    service.wait_ready_within(Duration::from_secs(5)).await;
    service
}

/// The bootstrap address that other clients can use.
async fn bootstrap(service: &Service) -> String {
    service.client().get("/health/kafka").await.json()["brokers"][0].as_str().unwrap().to_owned()
}

/// The text of a log line, or the line itself where it is plain.
fn text(line: &str) -> String {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    line["fields"]["message"].as_str().or(line["message"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn it_takes_records_soon_after_its_start() {
    let begin = Instant::now();
    let service = start().await;
    in_time(begin.elapsed(), Duration::from_secs(5));
    service.client().post("/logs", r#"{"value":1,"project":"p"}"#).await.written();
}

#[tokio::test]
async fn the_three_printed_curl_lines_work() {
    let service = start().await;
    let logs = service.logs();
    let lines: Vec<_> =
        logs.lines().map(text).filter_map(|line| Some(line[line.find("curl ")?..].to_owned())).collect();
    assert_eq!(lines.len(), 3, "{logs}");
    for line in lines {
        let output =
            process::output(Command::new("sh").args(["-c", &line.replacen("curl", "curl -sS", 1)])).unwrap();
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{line}: {output:?}"));
        assert_eq!(answer["success"], true, "{line}: {answer}");
    }
}

#[tokio::test]
async fn records_can_be_read_at_the_printed_bootstrap_address() {
    let service = start().await;
    let receipt = service.client().post("/logs", r#"{"value":{"a":1},"project":"p"}"#).await.written();
    let bootstrap = bootstrap(&service).await;
    assert!(service.logs().contains(&bootstrap), "{}", service.logs());
    assert_eq!(consumer::read_receipt(&bootstrap, &receipt).text(), r#"{"a":1,"project":"p"}"#);
}

#[tokio::test]
async fn the_default_topics_exist_and_others_are_made() {
    let service = start().await;
    let client = service.client();
    for path in ["/logs", "/metrics", "/events"] {
        client.post(path, r#"{"value":1,"project":"p"}"#).await.written();
    }
    let body = json!({"topic": "made-on-the-way", "value": 1, "project": "p"}).to_string();
    client.post("/produce", body).await.written();
    assert_eq!(consumer::count(&bootstrap(&service).await, "made-on-the-way"), 1);
}

#[tokio::test]
async fn it_is_said_that_nothing_is_kept() {
    let service = start().await;
    assert!(service.client().get("/ready").await.body.contains("embedded"));
    assert!(service.logs().contains("WARN"), "{}", service.logs());
}

#[tokio::test]
async fn of_a_partition_the_newest_5_mib_are_kept_which_is_said() {
    let service = start().await;
    let bootstrap = bootstrap(&service).await;
    // random letters, which lz4 makes no shorter: five such records fit
    let value: String = std::iter::repeat_with(fastrand::alphanumeric).take(900_000).collect();
    let body = json!({"topic": "large", "partition": 0, "message": {"text": value}}).to_string();
    for _ in 0..8 {
        service.client().post("/produce", body.clone()).await.written();
    }
    assert_eq!(consumer::offsets(&bootstrap, "large", 0), 3..8);
    assert!(service.logs().contains("the newest 5 MiB of each partition"), "{}", service.logs());
    assert!(run(&["--help"], &[]).await.output.contains("the newest 5 MiB of each partition"));
}

#[tokio::test]
async fn the_setting_does_the_same_as_the_flag() {
    let service = Service::spawn(&[("KAFKA_BROKERS", "embedded")]).await;
    service.wait_ready_within(Duration::from_secs(5)).await;
    service.client().post("/logs", r#"{"value":1,"project":"p"}"#).await.written();
}

#[tokio::test]
async fn it_listens_on_the_loopback_unless_told_otherwise() {
    let service = Service::spawn_with(&["--embedded"], &[("HOST", "")]).await;
    assert!(service.address().ip().is_loopback(), "{}", service.address());
}

#[tokio::test]
async fn it_ends_cleanly() {
    let service = Service::spawn_with(&["--embedded"], &[("SHUTDOWN_DELAY_MS", "100")]).await;
    service.wait_ready().await;
    service.signal("TERM");
    let (status, _) = service.wait_exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", service.logs());
}

//! What one HTTP client does with its bodies and connections makes no other one suffer.

use crate::support::{
    app::{Service, run},
    client::{Client, RawConnection},
    consumer, eventually,
};
use futures_util::future::join_all;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const RECORD: &str = r#"{"topic":"orders","value":{"a":1},"project":"p"}"#;
/// The default of `MAX_BODY_BYTES`.
const LARGEST_BODY: usize = 8 << 20;

async fn embedded(variables: &[(&str, &str)]) -> Service {
    let service = Service::spawn_with(&["--embedded"], variables).await;
    service.wait_ready().await;
    service
}

/// A record is written and is in Kafka.
async fn writes(service: &Service, client: &Client) {
    let receipt = client.post("/produce", RECORD).await.written();
    let brokers = client.get("/health/kafka").await.json();
    let record = consumer::read_receipt(brokers["brokers"][0].as_str().unwrap(), &receipt);
    assert_eq!(record.text(), r#"{"a":1,"project":"p"}"#, "{}", service.logs());
}

fn head(length: usize) -> String {
    format!("POST /produce/batch HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

/// Sends all of a large body but its last byte, and nothing more; the answer, or nothing within a time that is longer
/// than a body may take.
async fn stall(service: &Service) -> String {
    let mut connection = RawConnection::open(service.address()).await;
    connection.send(head(LARGEST_BODY)).await;
    // one that is refused may be closed before it was read to its end
    let _ = connection.try_send(vec![b' '; LARGEST_BODY - 1]).await;
    connection.read_to_end(Duration::from_secs(60)).await
}

#[tokio::test]
async fn large_bodies_that_stall_refuse_nobody_and_give_way() {
    let service = embedded(&[]).await;
    let client = service.client();
    let stalled = async { tokio::join!(stall(&service), stall(&service), stall(&service), stall(&service)) };
    let good = async {
        for _ in 0..100 {
            client.post("/produce", RECORD).await.written();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        writes(&service, &client).await;
        // the others give way to these
        let body = format!("[{RECORD},{RECORD}]{}", " ".repeat(LARGEST_BODY - 200));
        for _ in 0..3 {
            let answer = client.post("/produce/batch", body.clone()).await;
            assert_eq!(answer.status, 202, "{answer:?}");
        }
    };
    let ((a, b, c, d), ()) = tokio::join!(stalled, good);
    let answers = [a, b, c, d];
    let gave_way = answers.iter().filter(|answer| answer.contains("others need the room")).count();
    assert!(gave_way >= 1, "{answers:?}");
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("not_written"), "{answer}");
    }
}

#[tokio::test]
async fn large_bodies_that_trickle_leave_room_to_small_ones_whose_head_comes_alone() {
    let service = embedded(&[]).await;
    let mut trickled = Vec::new();
    for _ in 0..8 {
        let mut connection = RawConnection::open(service.address()).await;
        connection.send(head(LARGEST_BODY)).await;
        trickled.push(connection);
    }
    for _ in 0..10 {
        for connection in &mut trickled {
            // faster than the rate at which one gives way
            let _ = connection.try_send(vec![b' '; 30_000]).await;
        }
        let mut connection = RawConnection::open(service.address()).await;
        let body = format!("[{RECORD}]");
        connection.send(head(body.len())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.send(body).await;
        let answer = connection.read_until("}]}", Duration::from_secs(30)).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    // a large one that comes at once is not kept out either
    let client = service.client();
    let body = format!("[{RECORD}]{}", " ".repeat(LARGEST_BODY - 200));
    assert_eq!(client.post("/produce/batch", body).await.status, 202);
    writes(&service, &client).await;
}

/// One with a connection of its own.
async fn serves_a_new_client(service: &Service, limit: Duration) {
    eventually("a new client is served", limit, || async {
        (service.client().post("/produce", RECORD).await.status == 202).then_some(())
    })
    .await;
}

/// Connections were closed for others, for this reason, which is counted and logged.
async fn has_closed(service: &Service, reason: &str) {
    let metrics = service.client().get("/metrics").await.body;
    let counted = format!("http_connections_closed_total{{reason=\"{reason}\"}}");
    assert!(metrics.contains(&counted), "{metrics}");
    assert!(service.logs().contains(&format!("\"reason\":\"{reason}\"")), "{}", service.logs());
}

#[tokio::test]
async fn kept_connections_give_way_to_new_clients_once_they_have_idled_for_five_seconds() {
    let service = embedded(&[("MAX_CONNECTIONS", "20")]).await;
    let mut kept = Vec::new();
    for _ in 0..20 {
        let mut connection = RawConnection::open(service.address()).await;
        connection.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
        connection.read_until("}", Duration::from_secs(30)).await;
        kept.push(connection);
    }
    // probes get in meanwhile
    let port = service.address().port().to_string();
    let health = run(&["health"], &[("PORT", &port)]).await;
    assert!(health.status.success(), "{}", health.output);

    serves_a_new_client(&service, Duration::from_secs(40)).await;
    writes(&service, &service.client()).await;
    has_closed(&service, "idle").await;
    assert!(
        service.logs().contains("those that are idle or whose request does not come are closed"),
        "{}",
        service.logs()
    );
}

#[tokio::test]
async fn heads_that_do_not_come_give_way_to_probes_and_new_clients() {
    let service = embedded(&[("MAX_CONNECTIONS", "20")]).await;
    let mut halves = Vec::new();
    for _ in 0..60 {
        let mut connection = RawConnection::open(service.address()).await;
        connection.send("GET / HT").await;
        halves.push(connection);
    }
    let port = service.address().port().to_string();
    let health = run(&["health"], &[("PORT", &port)]).await;
    assert!(health.status.success(), "{}", health.output);
    // one request, and the other in the place that the first one has left or made
    serves_a_new_client(&service, Duration::from_secs(30)).await;
    writes(&service, &service.client()).await;
    has_closed(&service, "head").await;
}

/// A request whose body does not come.
const STALLED: &[u8] =
    b"POST /produce HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n";

/// Sends one after the other, soon after the one before is closed; never ends.
async fn stall_again(address: SocketAddr) {
    loop {
        let Ok(mut stalled) = TcpStream::connect(address).await else { continue };
        // it may be closed at any time
        let _ = stalled.write_all(STALLED).await;
        let _ = stalled.read_to_end(&mut Vec::new()).await;
        // as fast as places are made, it would compete for them with everybody else
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn bodies_that_do_not_come_give_way_to_new_clients() {
    let service = embedded(&[("MAX_CONNECTIONS", "20")]).await;
    let served = async {
        for _ in 0..5 {
            serves_a_new_client(&service, Duration::from_secs(15)).await;
        }
    };
    tokio::select! {
        _ = join_all((0..40).map(|_| stall_again(service.address()))) => {}
        () = served => {}
    }
    serves_a_new_client(&service, Duration::from_secs(15)).await;
    has_closed(&service, "body").await;
}

/// Records of one batch whose answer needs room.
const LARGE_BATCH: usize = 400;

fn large_batch(project: &str) -> String {
    let record = format!(r#"{{"topic":"orders","value":1,"project":"{project}"}}"#);
    format!("[{}]", vec![record; LARGE_BATCH].join(","))
}

#[tokio::test]
async fn clients_that_do_not_read_are_cut_off_and_what_they_sent_is_in_kafka() {
    let service = embedded(&[
        ("MAX_BODY_BYTES", "100000"),
        ("MAX_BATCH_RECORDS", "400"),
        ("MAX_IN_FLIGHT_BYTES", "800000"),
    ])
    .await;
    let client = service.client();
    let mut unread = Vec::new();
    for _ in 0..20 {
        let mut connection = RawConnection::open(service.address()).await;
        let body = large_batch("unread");
        connection.send(format!("{}{body}", head(body.len()))).await;
        let is_answered = async || connection.has_answer().await.then_some(());
        eventually("the batch is answered", Duration::from_secs(30), is_answered).await;
        // more than the buffers of the system hold
        let large = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n";
        connection.send(large.repeat(5)).await;
        unread.push(connection);
    }
    // all of them wait now, and none was slow for so long that others had its room
    let mut written = 0;
    let is_cut_off = async || {
        client.post("/produce", RECORD).await.written();
        client.post("/produce/batch", large_batch("read")).await.written();
        written += 1;
        let metrics = client.get("/metrics").await.body;
        metrics.contains("http_connections_closed_total{reason=\"unread\"}").then_some(())
    };
    eventually("clients that do not read are cut off", Duration::from_secs(60), is_cut_off).await;
    assert!(service.logs().contains("clients do not read their answers"), "{}", service.logs());

    let brokers = client.get("/health/kafka").await.json();
    let records = consumer::read_all(brokers["brokers"][0].as_str().unwrap(), "orders");
    let of = |project: &str| records.iter().filter(|record| record.json()["project"] == project).count();
    assert_eq!((of("unread"), of("read")), (20 * LARGE_BATCH, written * LARGE_BATCH));
}

#[tokio::test]
async fn bodies_that_are_costly_to_unpack_or_parse_are_refused_and_others_are_answered_meanwhile() {
    let service = embedded(&[("WORKER_THREADS", "1")]).await;
    let client = service.client();
    // members and blocks that hold nothing, and what is nested too deep
    let member = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let members = member.repeat(400_000);
    let blocks = [&[0x78, 1][..], &[2, 8, 32, 128, 0].repeat(1_500_000)].concat();
    let deep = format!(r#"{{"topic":"orders","project":"p","value":{}"#, "[".repeat(LARGEST_BODY - 100))
        .into_bytes();
    for (body, encoding, error) in [
        (members, "gzip", "invalid_body"),
        (blocks, "deflate", "invalid_body"),
        (deep, "identity", "invalid_json"),
    ] {
        let headers = [("content-encoding", encoding)];
        let costly = client.send("POST", "/produce", &headers, body);
        let (costly, ()) = tokio::join!(costly, writes(&service, &client));
        costly.problem(400, error);
    }
}

//! Malformed and hostile requests get a 4xx with the name of the fault, and nothing is written.

use crate::{
    service_or_skip,
    support::{
        app::Service,
        client::{Answer, RawConnection},
        consumer,
        port::ReservedPort,
    },
};
use serde_json::json;
use std::{
    io::Read,
    time::{Duration, Instant},
};

/// Fails unless the answer is this refusal, which can never mean that something was written.
#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str) {
    let problem = answer.problem(status, error);
    assert_eq!(problem["outcome"], "not_written", "{answer:?}");
}

#[tokio::test]
async fn each_faulty_body_is_refused_by_name_and_writes_nothing() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let client = service.client();
    for (members, error) in [
        (r#""value":1,"project":"p""#.to_owned() + "}{}", "invalid_json"),
        (r#""value":NaN,"project":"p""#.into(), "invalid_json"),
        (r#""value":01,"project":"p""#.into(), "invalid_json"),
        (r#""value":"\ud800","project":"p""#.into(), "invalid_json"),
        (r#""value":"\udc00x","project":"p""#.into(), "invalid_json"),
        (r#""value":1,"project":"p","#.into(), "invalid_json"),
        (r#""value":1,"project":"p","value":2"#.into(), "invalid_body"),
        (r#""value":1,"project":"p","pro\u006aect":"q""#.into(), "invalid_body"),
        (r#""value":1,"project":"p","message":{}"#.into(), "invalid_body"),
        (r#""message":[1]"#.into(), "invalid_body"),
        (r#""message":"text""#.into(), "invalid_body"),
        (r#""project":"p""#.into(), "missing_value"),
        (r#""value":1"#.into(), "missing_project"),
        (r#""value":1,"project":null"#.into(), "missing_project"),
        (r#""value":1,"project":"""#.into(), "missing_project"),
        (r#""value":1,"project":" \t\u00a0""#.into(), "missing_project"),
        (r#""value":1,"project":7"#.into(), "missing_project"),
        (r#""value":1,"project":"p","key":7"#.into(), "invalid_key"),
        (r#""value":1,"project":"p","key":{}"#.into(), "invalid_key"),
        (r#""tombstone":true"#.into(), "invalid_key"),
        (r#""tombstone":true,"key":"""#.into(), "invalid_key"),
        (r#""value":1,"project":"p","partition":-2"#.into(), "invalid_partition"),
        (r#""value":1,"project":"p","partition":0.5"#.into(), "invalid_partition"),
        (r#""value":1,"project":"p","partition":1"#.into(), "invalid_partition"),
        (r#""value":1,"project":"p","partition":99999999999999999999"#.into(), "invalid_partition"),
        (r#""value":1,"project":"p","partition":"0""#.into(), "invalid_partition"),
        (r#""value":1,"project":"p","headers":[]"#.into(), "invalid_header"),
        (r#""value":1,"project":"p","headers":{"h":1}"#.into(), "invalid_header"),
        (r#""value":1,"project":"p","headers":{"h":{"base64":"!"}}"#.into(), "invalid_header"),
        (r#""value":1,"project":"p","timestamp":"yesterday""#.into(), "invalid_timestamp"),
        (r#""value":1,"project":"p","timestamp":1.5"#.into(), "invalid_timestamp"),
        (r#""value":1,"project":"p","timestamp":-1"#.into(), "invalid_timestamp"),
        (r#""value":1,"project":"p","timestamp":"2026-02-30T00:00:00Z""#.into(), "invalid_timestamp"),
    ] {
        let body = format!(r#"{{"topic":"{topic}",{members}}}"#);
        let answer = client.post("/produce", body).await;
        assert!(answer.body.contains(&format!(r#""error":"{error}""#)), "{members}: {answer:?}");
        refused(&answer, 400, error);
    }
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 0);
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    for (body, error) in [
        (&b""[..], "invalid_json"),
        (b" ", "invalid_json"),
        (b"{", "invalid_json"),
        (b"{\"value\":1,\"project\":\"p\"", "invalid_json"),
        (b"nonsense", "invalid_json"),
        (b"{'value':1}", "invalid_json"),
        (b"{\"value\":\"\xff\",\"project\":\"p\"}", "invalid_json"),
        (b"{\"value\":\"\xed\xa0\x80\",\"project\":\"p\"}", "invalid_json"),
        (b"{\"value\":\"\0\",\"project\":\"p\"}", "invalid_json"),
        (b"\0\0\0\0", "invalid_json"),
        (b"[]", "invalid_body"),
        (b"null", "invalid_body"),
        (b"7", "invalid_body"),
        (b"\"text\"", "invalid_body"),
    ] {
        refused(&client.post("/logs", body).await, 400, error);
    }
    for body in ["{}", "7", "null", "\"x\""] {
        refused(&client.post("/produce/batch", body).await, 400, "invalid_body");
    }
    for body in ["", "[", "[{}", "[],[]"] {
        refused(&client.post("/produce/batch", body).await, 400, "invalid_json");
    }
}

#[tokio::test]
async fn nesting_without_end_is_refused() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
        for body in [
            format!(r#"{{"value":{deep},"project":"p"}}"#),
            format!(r#"{{"value":1,"project":"p","other":{deep}}}"#),
            deep.clone(),
            open.repeat(200_000),
        ] {
            let answer = client.post("/logs", body).await;
            assert_eq!(answer.status, 400, "{answer:?}");
        }
        let answer = client.post("/produce/batch", deep).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
}

#[tokio::test]
async fn only_legal_and_external_topic_names_are_taken() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    let long = "x".repeat(250);
    for topic in ["", ".", "..", "a b", "a/b", "ä", "a\u{0}", "a:b", "__consumer_offsets", "__x", &long] {
        let body = json!({"topic": topic, "value": 1, "project": "p"}).to_string();
        refused(&client.post("/produce", body).await, 400, "invalid_topic");
    }
    for (body, error) in [
        (r#"{"topic":7,"value":1,"project":"p"}"#, "invalid_topic"),
        (r#"{"topic":["a"],"value":1,"project":"p"}"#, "invalid_topic"),
        (r#"{"topic":null,"value":1,"project":"p"}"#, "missing_topic"),
        (r#"{"value":1,"project":"p"}"#, "missing_topic"),
    ] {
        refused(&client.post("/produce", body).await, 400, error);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limit_declared_or_chunked() {
    let (kafka, _) = service_or_skip!();
    let service = Service::on(kafka, &[("MAX_BODY_BYTES", "10000")]).await;
    let big = format!(r#"{{"value":"{}","project":"p"}}"#, "x".repeat(20_000));
    let declared = service.client().post("/logs", big.clone()).await;
    refused(&declared, 413, "body_too_large");
    assert!(declared.json()["detail"].as_str().unwrap().contains("10000"), "{declared:?}");

    let mut connection = RawConnection::open(service.address()).await;
    let head = "POST /logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(format!("{head}{:x}\r\n{big}\r\n", big.len())).await;
    let chunked = connection.read_until("body_too_large", Duration::from_secs(10)).await;
    assert!(chunked.starts_with("HTTP/1.1 413 "), "{chunked}");
}

#[tokio::test]
async fn a_small_body_that_unpacks_beyond_the_limit_is_refused() {
    let (_, service) = service_or_skip!();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, br#"{"project":"p","value":""#).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b'x'), 100 << 20), &mut packed).unwrap();
    std::io::Write::write_all(&mut packed, br#""}"#).unwrap();
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let client = service.client();
    refused(&client.send("POST", "/logs", &headers, packed.finish().unwrap()).await, 413, "body_too_large");
    let broken = client.send("POST", "/logs", &headers, "this is not gzip").await;
    assert_eq!(broken.status, 400, "{broken:?}");
}

#[tokio::test]
async fn what_follows_the_end_of_a_packed_body_is_refused_and_nothing_is_written() {
    let (kafka, service) = service_or_skip!();
    let topic = kafka.new_topic(1, &[]).await;
    let record = |value: u32| json!({"topic": topic, "value": value, "project": "p"}).to_string();
    let packed = |coding: &str, plain: &str| {
        let (level, mut packed) = (flate2::Compression::fast(), Vec::new());
        match coding {
            "gzip" => flate2::read::GzEncoder::new(plain.as_bytes(), level).read_to_end(&mut packed),
            _ => flate2::read::ZlibEncoder::new(plain.as_bytes(), level).read_to_end(&mut packed),
        }
        .unwrap();
        packed
    };
    let client = service.client();
    let post = async |coding: &str, body: Vec<u8>| {
        let headers = [("content-type", "application/x-ndjson"), ("content-encoding", coding)];
        client.send("POST", "/produce/batch", &headers, body).await
    };
    for coding in ["gzip", "deflate"] {
        let whole = packed(coding, &record(1));
        let mut rests = vec![b"x".to_vec(), record(2).into_bytes(), vec![0; 512]];
        if coding == "deflate" {
            rests.push(packed(coding, &record(2)));
        }
        for rest in rests {
            let answer = post(coding, [whole.clone(), rest].concat()).await;
            refused(&answer, 400, "invalid_body");
            assert!(
                answer.json()["detail"].as_str().unwrap().contains("nothing after the end"),
                "{answer:?}"
            );
        }
        refused(&post(coding, whole[..whole.len() - 1].to_vec()).await, 400, "invalid_body");
    }
    assert_eq!(consumer::count(&kafka.bootstrap(), &topic), 0);

    let members = [packed("gzip", &record(1)), packed("gzip", "\n"), packed("gzip", &record(2))].concat();
    post("gzip", members).await.written();
    post("deflate", packed("deflate", &record(3))).await.written();
    let values: Vec<_> = consumer::read_all(&kafka.bootstrap(), &topic)
        .iter()
        .map(|read| read.json()["value"].clone())
        .collect();
    assert_eq!(values, [1, 2, 3]);
}

#[tokio::test]
async fn unknown_content_types_and_encodings_are_refused() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    let body = r#"{"value":1,"project":"p"}"#;
    for content_type in
        ["text/html", "application/xml", "multipart/form-data; boundary=x", "nonsense", "image/png"]
    {
        refused(&client.post_as(content_type, "/logs", body).await, 415, "unsupported_media_type");
    }
    refused(&client.post_as("application/x-ndjson", "/logs", body).await, 415, "unsupported_media_type");
    for encoding in ["br", "zstd", "gzip, gzip", "nonsense"] {
        let headers = [("content-type", "application/json"), ("content-encoding", encoding)];
        let answer = client.send("POST", "/logs", &headers, body).await;
        refused(&answer, 415, "unsupported_media_type");
    }
    let identity = [("content-type", "application/json"), ("content-encoding", "identity")];
    client.send("POST", "/logs", &identity, body).await.written();
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    for (method, path, allowed) in [
        ("GET", "/produce", "POST"),
        ("GET", "/logs", "POST"),
        ("PUT", "/produce/batch", "POST"),
        ("DELETE", "/metrics", "POST"),
        ("DELETE", "/metrics", "GET"),
        ("POST", "/health", "GET"),
        ("POST", "/ready", "GET"),
        ("PATCH", "/", "GET"),
    ] {
        let answer = client.send(method, path, &[], "").await;
        refused(&answer, 405, "method_not_allowed");
        let allow = answer.header("allow").expect("Allow");
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{method} {path}: {allow}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    for path in ["/nowhere", "/logs/x", "/PRODUCE", "/%00", "/..%2f..%2fetc/passwd", "//"] {
        refused(&client.post(path, "{}").await, 404, "not_found");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_post() {
    let (_, service) = service_or_skip!();
    let client = service.client();
    for origin in ["https://elsewhere.example", "null", "http://127.0.0.1:1"] {
        let answer =
            client.send("POST", "/logs", &[("origin", origin)], r#"{"value":1,"project":"p"}"#).await;
        refused(&answer, 403, "foreign_origin");
    }
    let rebound = [("origin", "http://rebound.example"), ("host", "rebound.example")];
    let answer = client.send("POST", "/logs", &rebound, r#"{"value":1,"project":"p"}"#).await;
    refused(&answer, 403, "foreign_origin");
    assert_eq!(
        client.send("GET", "/health", &[("origin", "https://elsewhere.example")], "").await.status,
        200
    );
}

#[tokio::test]
async fn bytes_that_are_no_http_are_refused_and_closed() {
    let (_, service) = service_or_skip!();
    for garbage in ["nonsense\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", "GET / HTTP/9.9\r\n\r\n"] {
        let mut connection = RawConnection::open(service.address()).await;
        connection.send(garbage).await;
        let answer = connection.read_to_end(Duration::from_secs(15)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains(r#""error":"bad_request""#), "{answer}");
    }
    let mut huge = RawConnection::open(service.address()).await;
    huge.try_send(format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(2 << 20))).await;
    let answer = huge.read_to_end(Duration::from_secs(15)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.contains(r#""error":"head_too_large""#), "{answer}");
    assert_eq!(service.client().get("/health").await.status, 200);
}

#[tokio::test]
async fn a_stalled_head_is_closed_and_a_stalled_body_is_told_so() {
    let (kafka, _) = service_or_skip!();
    let service = Service::on(kafka, &[("HEADER_TIMEOUT_MS", "1000"), ("BODY_TIMEOUT_MS", "2000")]).await;
    let limit = Duration::from_secs(10);

    let mut head = RawConnection::open(service.address()).await;
    head.send("POST /logs HTTP/1.1\r\nhost: x\r\n").await;
    let answer = head.read_to_end(limit).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");

    let mut body = RawConnection::open(service.address()).await;
    body.send("POST /logs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"value\"").await;
    let answer = body.read_to_end(limit).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains(r#""error":"request_timeout""#), "{answer}");
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off() {
    let (_, service) = service_or_skip!();
    let mut connection = RawConnection::open(service.address()).await;
    connection.send("POST /logs HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n").await;
    let start = Instant::now();
    while connection.try_send(" ").await && start.elapsed() < Duration::from_secs(60) {
        if connection.has_answer().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(40), "a body of 10 bytes a second was read on");
    let answer = connection.read_until("request_timeout", Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_before_the_state_of_kafka() {
    let nobody = ReservedPort::new();
    let service = Service::spawn(&[("KAFKA_BROKERS", &nobody.address().to_string())]).await;
    let client = service.client();
    refused(&client.post("/logs", r#"{"value":1}"#).await, 400, "missing_project");
    refused(&client.post("/nowhere", "").await, 404, "not_found");
    refused(&client.post("/logs", r#"{"value":1,"project":"p"}"#).await, 503, "not_ready");
}

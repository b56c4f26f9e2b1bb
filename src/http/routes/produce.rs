//! `POST /produce`: one record to the topic that its body names.

use crate::{
    envelope::{Target, parse_record},
    http::{
        ApiError, AppState, answer,
        extract::{ReadBody, RecordBody, RequestContext},
        openapi::{NamedRecord, Preferences, ProduceFailures, RecordAccepted},
    },
    produce::{self, Accepted, Arrival, TopicName},
};
use axum::{extract::State, response::Response};

/// Writes one record to the topic that the body names.
#[utoipa::path(
    post, path = "/produce",
    operation_id = "produce", tag = "produce",
    request_body(content = NamedRecord, description = "Read as JSON whatever common content type it has"),
    params(Preferences),
    responses(RecordAccepted, ProduceFailures)
)]
pub async fn one(
    State(state): State<AppState>,
    context: RequestContext,
    RecordBody(body): RecordBody,
) -> Result<Response, ApiError> {
    let prefer = body.prefer;
    let accepted = send(&state, &context, body, None).await?;
    Ok(prefer.say_applied(answer::one(&accepted), [&accepted]))
}

/// Takes the one record of a body to its receipt; without a topic, the body names it.
pub(super) async fn send(
    state: &AppState,
    context: &RequestContext,
    body: ReadBody,
    topic: Option<&TopicName>,
) -> Result<Accepted, ApiError> {
    let arrival = Arrival::now().with_patience(body.prefer.patience());
    let topic = topic.cloned();
    let parsed = state.parse(body.bytes, context, arrival, move |body, context| {
        parse_record(body, topic.as_ref().map_or(Target::Named, Target::Fixed), context)
    });
    let record = parsed.await?;
    // the body's share of the budget stays reserved: the record holds its bytes, or as many, until Kafka has answered
    let verdicts = state.pipeline.submit([record], arrival).await?;
    let verdict = verdicts.into_iter().next();
    let verdict =
        verdict.unwrap_or_else(|| Err(produce::Error::Internal("a record without a verdict".into())));
    Ok(verdict.inspect_err(|error| state.log_topic_fault(error))?)
}

#[cfg(test)]
mod tests {
    use crate::{
        http::testing::App,
        produce::{Error, fake::Step},
    };
    use axum::body::Body;
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use std::sync::{Arc, atomic::Ordering::Relaxed};

    const RECORD: &str = r#"{"topic":"orders","project":"p","value":{"a":1},"timestamp":1795228481123}"#;

    #[tokio::test]
    async fn a_written_record_is_202_with_where_it_is() {
        let answer = App::new().post("/produce", RECORD).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(
            answer.text(),
            concat!(
                r#"{"ok":true,"success":true,"message":"Message sent successfully","topic":"orders","#,
                r#""partition":0,"offset":0,"timestamp":"2026-11-21T02:34:41.123Z"}"#
            )
        );
    }

    /// Knows whether it is still in memory.
    struct Watched(&'static [u8], #[expect(dead_code, reason = "held for its drop")] Arc<()>);

    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            self.0
        }
    }

    #[tokio::test]
    async fn a_body_that_no_record_borrows_is_gone_while_kafka_is_awaited() {
        let batch: &[u8] = br#"[{"topic":"orders","project":"p","value":{"a":1}}]"#;
        for (path, body) in [("/produce", RECORD.as_bytes()), ("/produce/batch", batch)] {
            let app = App::new();
            app.producer.then(Step::Held);
            let watched = Arc::new(());
            let body = Bytes::from_owner(Watched(body, watched.clone()));
            let sent = async {
                while app.records_sent() == 0 {
                    tokio::task::yield_now().await;
                }
                Arc::strong_count(&watched)
            };
            let (answer, held) = tokio::join!(app.post(path, body), sent);
            assert_eq!((answer.status, held), (504, 1), "{path}");
        }
    }

    #[tokio::test]
    async fn one_trailing_slash_is_accepted_and_no_second_one() {
        let app = App::new();
        assert_eq!(app.post("/produce/", RECORD).await.status, 202);
        assert_eq!(app.post("/produce//", RECORD).await.error(), (404, "not_found".into()));
        assert_eq!(app.post("/Produce", RECORD).await.error(), (404, "not_found".into()));
    }

    #[tokio::test]
    async fn every_fault_of_a_body_is_400_and_nothing_is_written() {
        let app = App::new();
        for (body, error) in [
            (r#"{"topic":"orders""#, "invalid_json"),
            ("[]", "invalid_body"),
            (r#"{"topic":"orders","project":"p"}"#, "missing_value"),
            (r#"{"topic":"orders","value":1}"#, "missing_project"),
            (r#"{"project":"p","value":1}"#, "missing_topic"),
            (r#"{"topic":"a b","project":"p","value":1}"#, "invalid_topic"),
            (r#"{"topic":"orders","partition":-2,"project":"p","value":1}"#, "invalid_partition"),
            (r#"{"topic":"orders","partition":3,"project":"p","value":1}"#, "invalid_partition"),
            (r#"{"topic":"orders","key":1,"project":"p","value":1}"#, "invalid_key"),
            (r#"{"topic":"orders","headers":{"a":1},"project":"p","value":1}"#, "invalid_header"),
            (r#"{"topic":"orders","timestamp":"now","project":"p","value":1}"#, "invalid_timestamp"),
        ] {
            assert_eq!(app.post("/produce", body).await.error(), (400, error.into()), "{body}");
        }
        assert_eq!(app.records_sent(), 0);
    }

    #[tokio::test]
    async fn a_malformed_prefer_is_400_and_names_the_header() {
        let malformed = [("prefer", "wait=soon")];
        let direct = App::new().post_with("/produce", &malformed, RECORD).await;
        assert_eq!(direct.status, 202, "direct delivery has no use for it");
        let app = App::durable();
        let answer = app.post_with("/produce", &malformed, RECORD).await;
        assert_eq!(answer.error(), (400, "invalid_prefer".into()));
        assert!(answer.text().contains("the Prefer header"), "{}", answer.text());
        assert_eq!(app.records_sent(), 0);
    }

    #[tokio::test]
    async fn a_stored_record_is_202_with_its_receipt_and_where_to_ask_for_it() {
        let app = App::durable();
        *app.producer.unavailable.lock().unwrap() = Some(Error::NotReady { reason: "no broker".into() });
        for (path, prefer) in [("/produce", "wait=5"), ("/produce/", "return=minimal")] {
            let answer = app.post_with(path, &[("prefer", prefer)], RECORD).await;
            assert_eq!(answer.status, 202);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let receipt = answer.json()["receipt"].as_str().unwrap().to_owned();
            let expected = [
                r#"{"ok":true,"success":true,"message":"Message stored; it will be sent to Kafka","#,
                r#""stored":"spool","receipt":""#,
                &receipt,
                r#"","topic":"orders","timestamp":"2026-11-21T02:34:41.123Z"}"#,
            ];
            assert_eq!(answer.text(), expected.concat());
            let location = format!("/receipts/{receipt}");
            assert_eq!(answer.header("location"), Some(&*location));
            assert_eq!(answer.header("preference-applied"), None);
            assert_eq!(app.get(&location).await.json()["state"], "pending");
        }
    }

    #[tokio::test]
    async fn durable_delivery_answers_like_direct_where_kafka_takes_the_record() {
        let record = |prefer| async move { App::durable().post_with("/produce", prefer, RECORD).await };
        let direct = App::new().post("/produce", RECORD).await;
        let waits: [&[_]; 3] = [&[], &[("prefer", "wait=5")], &[("prefer", "respond-async, wait=5")]];
        for prefer in waits {
            let answer = record(prefer).await;
            assert_eq!((answer.status, answer.text()), (202, direct.text()));
            assert_eq!(answer.header("location"), None);
            assert_eq!(answer.header("preference-applied"), None, "it did wait");
        }
    }

    #[tokio::test]
    async fn who_does_not_want_to_wait_has_the_record_stored_on_every_route() {
        for path in ["/logs", "/metrics", "/events", "/produce"] {
            for (prefer, applied) in [
                ("respond-async", Some("respond-async")),
                ("respond-async, wait=0", Some("respond-async")),
                ("wait=0", None),
            ] {
                let app = App::durable();
                let answer = app.post_with(path, &[("prefer", prefer)], RECORD).await;
                assert_eq!((answer.status, &answer.json()["stored"]), (202, &serde_json::json!("spool")));
                assert_eq!(answer.header("preference-applied"), applied, "{path} {prefer}");
                assert_eq!(app.records_sent(), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_record_without_a_report_in_time_is_stored() {
        let app = App::durable();
        app.producer.then(Step::Held);
        let answer = app.post("/produce", RECORD).await;
        assert_eq!((answer.status, &answer.json()["stored"]), (202, &serde_json::json!("spool")));
        assert_eq!(app.records_sent(), 1);
    }

    #[tokio::test]
    async fn a_full_spool_is_503_with_when_to_come_again() {
        let app = App::durable();
        app.spool.is_full.store(true, Relaxed);
        let answer = app.post_with("/produce", &[("prefer", "respond-async")], RECORD).await;
        assert_eq!(answer.error(), (503, "spool_full".into()));
        assert_eq!(answer.header("retry-after"), Some("1"));
        let problem = answer.json();
        let told = (problem["outcome"].as_str(), problem["retriable"].as_bool());
        assert_eq!(told, (Some("not_written"), Some(true)));
        assert_eq!(app.post("/produce", RECORD).await.status, 202, "Kafka takes it");
    }

    #[tokio::test]
    async fn durable_delivery_keeps_the_names_of_its_headers_to_itself() {
        for name in ["receipt", "receipt-replayed"] {
            let body =
                format!(r#"{{"topic":"orders","project":"p","value":1,"headers":{{"{name}":"mine"}}}}"#);
            let answer = App::durable().post("/produce", body.clone()).await;
            assert_eq!(answer.error(), (400, "invalid_header".into()));
            assert_eq!(App::new().post("/produce", body).await.status, 202);
        }
    }

    #[tokio::test]
    async fn direct_delivery_waits_for_kafka_whatever_the_client_prefers() {
        let answer = App::new().post_with("/produce", &[("prefer", "respond-async, wait=0")], RECORD).await;
        assert_eq!((answer.status, &answer.json()["offset"]), (202, &serde_json::json!(0)));
        assert_eq!(answer.header("preference-applied"), None);
    }

    #[tokio::test]
    async fn an_unknown_topic_is_404_and_says_what_to_do() {
        let answer = App::new().post("/produce", RECORD.replace("orders", "none")).await;
        assert_eq!(
            answer.text(),
            concat!(
                r#"{"type":"urn:kafka-inlet:error:unknown_topic","title":"Unknown topic","status":404,"#,
                r#""detail":"topic 'none' does not exist; create it, or check the spelling","#,
                r#""error":"unknown_topic","outcome":"not_written","retriable":false}"#
            )
        );
    }

    #[tokio::test]
    async fn a_record_above_the_topics_limit_is_413_with_the_limit() {
        let body = format!(r#"{{"topic":"orders","project":"p","value":"{}"}}"#, "x".repeat(900));
        let answer = App::new().post("/produce", body).await;
        assert_eq!(answer.error(), (413, "record_too_large".into()));
        assert!(answer.text().contains("at most 900"), "{}", answer.text());
    }

    #[tokio::test]
    async fn each_verdict_of_kafka_has_its_status() {
        let topic = || crate::produce::TopicName::parse("orders").unwrap();
        let reason = || "why".to_owned();
        for (verdict, status, error, outcome, retriable) in [
            (Error::Unauthorized(topic()), 403, "kafka_unauthorized", "not_written", false),
            (Error::Rejected { reason: reason() }, 400, "record_rejected", "not_written", false),
            (Error::KeyRequired(topic()), 400, "invalid_key", "not_written", false),
            (Error::BrokerUnavailable { reason: reason() }, 503, "broker_unavailable", "not_written", true),
            (Error::AcknowledgementLost { reason: reason() }, 504, "delivery_timeout", "unknown", true),
            (Error::Internal("secret".into()), 500, "internal", "unknown", true),
        ] {
            let app = App::new();
            app.producer.then(Step::Fails(verdict));
            let answer = app.post("/produce", RECORD).await;
            assert_eq!(answer.error(), (status, error.into()));
            let problem = answer.json();
            assert_eq!(
                (problem["outcome"].as_str(), problem["retriable"].as_bool()),
                (Some(outcome), Some(retriable))
            );
            assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"));
            assert!(!answer.text().contains("secret"));
        }
    }

    #[tokio::test]
    async fn a_record_without_a_report_is_504_at_the_deadline() {
        let app = App::new();
        app.producer.then(Step::Held);
        let answer = app.post("/produce", RECORD).await;
        assert_eq!(answer.error(), (504, "delivery_timeout".into()));
        assert_eq!(answer.json()["outcome"], "unknown");
    }

    #[tokio::test]
    async fn a_bad_request_is_400_even_while_kafka_is_down() {
        let app = App::new();
        *app.producer.unavailable.lock().unwrap() = Some(Error::NotReady { reason: "no broker".into() });
        assert_eq!(app.post("/produce", "{}").await.status, 400);
        let answer = app.post("/produce", RECORD).await;
        assert_eq!(answer.error(), (503, "not_ready".into()));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_413_declared_or_chunked() {
        let app = App::new();
        let long = || vec![b' '; 1025];
        let chunks = stream::iter(long()).map(|byte| Ok::<_, std::convert::Infallible>(vec![byte]));
        for body in [Body::from(long()), Body::from_stream(chunks)] {
            let answer = app.post("/produce", body).await;
            assert_eq!(answer.error(), (413, "body_too_large".into()));
            assert!(answer.text().contains("1024"), "{}", answer.text());
        }
    }

    #[tokio::test]
    async fn a_spent_budget_is_503_before_the_body_is_read() {
        let app = App::new();
        let mut permit = app.state.budget().permit();
        assert!(permit.grow(app.state.budget().limit()));
        let answer = app.post("/produce", RECORD).await;
        assert_eq!(answer.error(), (503, "overloaded".into()));
        assert_eq!(answer.header("retry-after"), Some("1"));
        drop(permit);
        assert_eq!(app.post("/produce", RECORD).await.status, 202);
        assert_eq!(app.state.budget().used(), 0);
    }

    #[tokio::test]
    async fn what_is_not_json_is_415() {
        let app = App::new();
        for (header, value) in [
            ("content-type", "application/xml"),
            ("content-type", "application/json; charset=latin1"),
            ("content-type", "application/x-ndjson"),
            ("content-encoding", "br"),
        ] {
            let answer = app.post_with("/produce", &[(header, value)], RECORD).await;
            assert_eq!(answer.error(), (415, "unsupported_media_type".into()), "{value}");
        }
    }

    #[tokio::test]
    async fn a_web_page_of_another_origin_is_403() {
        let app = App::new();
        let from = |origin| [("host", "localhost:4000"), ("origin", origin)];
        let answer = app.post_with("/produce", &from("http://evil.example"), RECORD).await;
        assert_eq!(answer.error(), (403, "foreign_origin".into()));
        assert_eq!(app.post_with("/produce", &from("http://localhost:4000"), RECORD).await.status, 202);
    }

    #[tokio::test]
    async fn another_method_is_405_with_those_allowed() {
        let app = App::new();
        let answer = app.get("/produce").await;
        assert_eq!(answer.error(), (405, "method_not_allowed".into()));
        assert_eq!(answer.header("allow"), Some("POST"));
        let answer = app.post("/health", RECORD).await;
        assert_eq!(answer.error(), (405, "method_not_allowed".into()));
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    }
}

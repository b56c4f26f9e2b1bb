//! `POST /produce/batch`: many records, to any topics.

use crate::{
    envelope::parse_batch,
    http::{
        ApiError, AppState, answer,
        extract::{BatchBody, RequestContext},
        openapi::{BatchAccepted, NamedRecord, Preferences, ProduceFailures},
    },
    produce::Arrival,
};
use axum::{extract::State, response::Response};

/// Bytes of a record in a body, for a guess at how many there are.
const USUAL_RECORD: usize = 64;

/// Writes many records. What is wrong with the bodies refuses them all; what Kafka decides is a result a record.
#[utoipa::path(
    post, path = "/produce/batch",
    operation_id = "produce_batch", tag = "produce",
    request_body(
        description = "A JSON array, or one JSON object a line",
        content((Vec<NamedRecord> = "application/json"), (NamedRecord = "application/x-ndjson"))
    ),
    params(Preferences),
    responses(BatchAccepted, ProduceFailures)
)]
pub async fn many(
    State(state): State<AppState>,
    context: RequestContext,
    BatchBody { format, body }: BatchBody,
) -> Result<Response, ApiError> {
    let arrival = Arrival::now().with_patience(body.prefer.patience());
    // before anything is written, as what is written must be answered; and before the records take memory
    let guess = (body.bytes.len() / USUAL_RECORD).min(state.limits.max_batch_records);
    let mut room = state.answers().reserve(answer::expected_bytes(guess)).await?;
    let parsed =
        state.parse(body.bytes, &context, arrival, move |body, context| parse_batch(body, format, context));
    let records = parsed.await?;
    let expected = answer::expected_bytes(records.len());
    match &mut room {
        Some(room) => room.resize(expected),
        None => room = state.answers().reserve(expected).await?,
    }
    // the body's share of the budget stays reserved: the records hold its bytes, or as many, until Kafka has answered
    let verdicts = state.pipeline.submit(records, arrival).await?;
    verdicts
        .iter()
        .filter_map(|verdict| verdict.as_ref().err())
        .for_each(|error| state.log_topic_fault(error));
    let mut response = answer::many(&verdicts);
    if let Some(room) = room {
        room.goes_with(&mut response);
    }
    Ok(body.prefer.say_applied(response, verdicts.iter().flatten()))
}

#[cfg(test)]
mod tests {
    use crate::{
        http::{
            aside,
            testing::{Answer, App},
        },
        produce::{Error, fake::Step},
    };
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::{pin::pin, sync::atomic::Ordering::Relaxed};

    const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

    fn record(topic: &str) -> String {
        format!(r#"{{"topic":"{topic}","project":"p","value":1}}"#)
    }

    async fn post(app: &App, topics: &[&str]) -> Answer {
        let records: Vec<String> = topics.iter().map(|topic| record(topic)).collect();
        app.post("/produce/batch", format!("[{}]", records.join(","))).await
    }

    #[tokio::test]
    async fn all_written_is_202_with_a_result_a_record_in_order() {
        let answer = post(&App::new(), &["orders", "rtmh.logs"]).await;
        assert_eq!(answer.status, 202);
        let answer = answer.json();
        assert_eq!((&answer["success"], &answer["messages_sent"]), (&json!(true), &json!(2)));
        assert_eq!(answer["results"][1]["topic"], "rtmh.logs");
        assert_eq!(answer["results"][1]["ok"], true);
    }

    #[tokio::test]
    async fn ndjson_is_one_record_a_line() {
        let app = App::new();
        let body = format!("{}\n\n{}\n", record("orders"), record("orders"));
        let answer = app.post_with("/produce/batch", &NDJSON, body).await;
        assert_eq!((answer.status, app.records_sent()), (202, 2));
    }

    #[tokio::test]
    async fn an_empty_batch_is_202_with_nothing() {
        let app = App::new();
        let nothing = json!({"success": true, "messages_sent": 0, "results": []});
        let answer = app.post("/produce/batch", "[]").await;
        assert_eq!((answer.status, answer.json()), (202, nothing.clone()));
        let answer = app.post_with("/produce/batch", &NDJSON, "").await;
        assert_eq!((answer.status, answer.json()), (202, nothing));
    }

    #[tokio::test]
    async fn one_faulty_body_refuses_them_all() {
        let app = App::new();
        let body =
            format!(r#"[{},{{"topic":"orders","value":1}},{{"project":"p","value":1}}]"#, record("orders"));
        let answer = app.post("/produce/batch", body).await;
        assert_eq!(answer.error(), (400, "missing_project".into()));
        let problem = answer.json();
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!((&errors[0]["index"], &errors[0]["error"]), (&json!(1), &json!("missing_project")));
        assert_eq!((&errors[1]["index"], &errors[1]["error"]), (&json!(2), &json!("missing_topic")));
        assert_eq!(problem["errors_total"], 2);
        assert_eq!(app.records_sent(), 0);
    }

    #[tokio::test]
    async fn of_many_faults_a_hundred_are_listed_and_all_are_counted() {
        let app = App::large();
        let answer = app.post("/produce/batch", format!("[{}{{}}]", "{},".repeat(9999))).await;
        assert_eq!(answer.error(), (400, "missing_value".into()));
        let problem = answer.json();
        assert_eq!(
            (problem["errors"].as_array().unwrap().len(), &problem["errors_total"]),
            (100, &json!(10_000))
        );
        assert!(problem["detail"].as_str().unwrap().starts_with("10000 of the batch's records"), "{problem}");
        assert!(answer.body.len() < 20_000, "{} bytes", answer.body.len());
        assert_eq!(app.records_sent(), 0);
    }

    #[tokio::test]
    async fn too_many_records_are_413_with_the_limit() {
        let answer = post(&App::new(), &["orders"; 4]).await;
        assert_eq!(answer.error(), (413, "body_too_large".into()));
        assert!(answer.text().contains("at most 3 records"), "{}", answer.text());
    }

    /// A batch of about so many bytes: as many good records as fit, or one faulty one among them.
    fn batch_of(bytes: usize, is_faulty: bool) -> String {
        let mut records = vec![record("orders"); bytes / (record("orders").len() + 1)];
        if is_faulty {
            records.push("{}".into());
        }
        format!("[{}]", records.join(","))
    }

    #[tokio::test]
    async fn a_large_batch_leaves_its_thread_to_others_until_it_is_parsed() {
        let app = App::large();
        for (body, status) in [(batch_of(300_000, false), 202), (batch_of(300_000, true), 400)] {
            let turns = app.state.aside().take_turns();
            let mut large = pin!(app.post("/produce/batch", body));
            assert!(large.as_mut().now_or_never().is_none());
            assert_eq!(post(&app, &["orders"]).await.status, 202);
            drop(turns);
            assert_eq!(large.await.status, status);
        }
        let small = app.post("/produce/batch", batch_of(60_000, true)).now_or_never();
        assert_eq!(small.map(|answer| answer.status), Some(400), "a small one is parsed on the spot");
    }

    #[tokio::test]
    async fn a_body_of_empty_gzip_members_is_refused_while_others_are_answered() {
        let app = App::large();
        // a member without content, as gzip -n makes it
        let member = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let gzip = [("content-encoding", "gzip")];
        let turns = app.state.aside().take_turns();
        let mut members = pin!(app.post_with("/produce/batch", &gzip, member.repeat(40_000)));
        assert!(members.as_mut().now_or_never().is_none());
        assert_eq!(post(&app, &["orders"]).await.status, 202);
        drop(turns);
        let answer = members.await;
        assert_eq!(answer.error(), (400, "invalid_body".into()));
        assert!(answer.text().contains("more than 1000 members"), "{}", answer.text());
    }

    #[tokio::test]
    async fn where_unread_answers_have_all_the_room_a_large_batch_is_refused_before_it_is_written() {
        let app = App::large();
        let all: Vec<_> = (0..2).map(|_| app.state.answers().try_reserve(usize::MAX).unwrap()).collect();
        let refused = app.post("/produce/batch", batch_of(100_000, false)).await;
        assert_eq!((refused.error(), app.records_sent()), ((503, "overloaded".into()), 0));
        assert_eq!(post(&app, &["orders"]).await.status, 202, "a small one needs none");
        drop(all);
        assert_eq!(app.post("/produce/batch", batch_of(100_000, false)).await.status, 202);
        let free: Vec<_> = (0..2).map_while(|_| app.state.answers().try_reserve(usize::MAX)).collect();
        assert_eq!(free.len(), 2, "what was read has given its room back");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Of sizes about the one from which on a body is parsed aside, good and bad.
        #[test]
        fn what_is_parsed_aside_is_answered_as_on_the_spot(
            length in aside::LARGE - 3..aside::LARGE + 3,
            is_faulty in any::<bool>(),
        ) {
            let records = batch_of(10_000, is_faulty);
            let padded = format!("{records}{}", " ".repeat(length - records.len()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let sent = |body: String| runtime.block_on(async {
                let app = App::large();
                let mut answer = app.post("/produce/batch", body).await.json();
                for result in answer["results"].as_array_mut().into_iter().flatten() {
                    // the time of arrival
                    result["timestamp"] = Value::Null;
                }
                let records = app.producer.sent().into_iter().map(|(record, _)| record.value);
                (answer, records.collect::<Vec<_>>())
            });
            prop_assert_eq!(sent(padded), sent(records));
        }
    }

    #[tokio::test]
    async fn some_written_is_207() {
        let answer = post(&App::new(), &["orders", "none"]).await;
        assert_eq!(answer.status, 207);
        let answer = answer.json();
        assert_eq!((&answer["success"], &answer["messages_sent"]), (&json!(false), &json!(1)));
        let failed = json!({
            "success": false, "outcome": "not_written", "error": "unknown_topic",
            "detail": "topic 'none' does not exist; create it, or check the spelling", "retriable": false
        });
        assert_eq!(answer["results"][1], failed);
    }

    #[tokio::test]
    async fn none_written_has_the_status_that_the_failures_share() {
        let answer = post(&App::new(), &["none", "nor-this"]).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["messages_sent"], 0);
    }

    #[tokio::test]
    async fn failures_of_different_kinds_have_the_status_of_the_gravest_question() {
        let rejected = || Error::Rejected { reason: "why".into() };
        let unavailable = || Error::BrokerUnavailable { reason: "why".into() };
        let lost = || Error::AcknowledgementLost { reason: "why".into() };
        for (failure, status) in [(rejected(), 400), (unavailable(), 503), (lost(), 504)] {
            let app = App::new();
            app.producer.then(Step::Fails(failure));
            let answer = post(&app, &["orders", "none"]).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"));
        }
    }

    #[tokio::test]
    async fn stored_records_of_a_batch_have_their_receipts_and_are_counted() {
        let app = App::durable();
        app.producer.then(Step::Written).then(Step::Fails(Error::BrokerUnavailable { reason: "why".into() }));
        let answer = post(&app, &["orders", "rtmh.logs"]).await;
        assert_eq!((answer.status, answer.header("location")), (202, None));
        let answer = answer.json();
        assert_eq!((&answer["success"], &answer["messages_sent"]), (&json!(true), &json!(1)));
        assert_eq!(answer["messages_stored"], 1);
        assert_eq!(answer["results"][0]["offset"], 0);
        let stored = &answer["results"][1];
        assert_eq!((&stored["stored"], &stored["topic"]), (&json!("spool"), &json!("rtmh.logs")));
        assert_eq!(stored["receipt"], "here-0000000000000001");
    }

    #[tokio::test]
    async fn stored_beside_failed_is_207_also_where_none_is_in_kafka() {
        let app = App::durable();
        app.producer.then(Step::Fails(Error::BrokerUnavailable { reason: "why".into() }));
        let answer = post(&app, &["orders", "none"]).await;
        assert_eq!(answer.status, 207);
        let answer = answer.json();
        assert_eq!((&answer["success"], &answer["messages_sent"]), (&json!(false), &json!(0)));
        assert_eq!(answer["messages_stored"], 1);
        assert_eq!(answer["results"][1]["error"], "unknown_topic");
    }

    #[tokio::test]
    async fn without_a_connection_durable_delivery_stores_the_whole_batch() {
        let app = App::durable();
        *app.producer.unavailable.lock().unwrap() = Some(Error::NotReady { reason: "no broker".into() });
        let answer = post(&app, &["orders", "unheard-of"]).await;
        assert_eq!((answer.status, &answer.json()["messages_stored"]), (202, &json!(2)));
        app.spool.is_full.store(true, Relaxed);
        let answer = post(&app, &["orders", "orders"]).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(answer.json()["results"][1]["error"], "spool_full");
    }

    #[tokio::test]
    async fn a_batch_whose_client_does_not_wait_is_stored_in_durable_mode_alone() {
        let body = format!("[{}]", record("orders"));
        let prefer = [("prefer", "respond-async")];
        let answer = App::durable().post_with("/produce/batch", &prefer, body.clone()).await;
        assert_eq!((answer.status, &answer.json()["messages_stored"]), (202, &json!(1)));
        assert_eq!(answer.header("preference-applied"), Some("respond-async"));
        let answer = App::new().post_with("/produce/batch", &prefer, body).await;
        assert_eq!((answer.status, &answer.json()["messages_sent"]), (202, &json!(1)));
        assert!(!answer.text().contains("messages_stored"));
        assert_eq!(answer.header("preference-applied"), None);
    }

    #[tokio::test]
    async fn without_a_connection_the_whole_batch_is_a_problem() {
        let app = App::new();
        *app.producer.unavailable.lock().unwrap() = Some(Error::NotReady { reason: "no broker".into() });
        assert_eq!(post(&app, &["orders"]).await.error(), (503, "not_ready".into()));
    }
}

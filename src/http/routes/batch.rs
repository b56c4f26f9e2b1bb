//! `POST /produce/batch`: many records, to any topics.

use crate::{
    envelope::parse_batch,
    http::{
        ApiError, AppState, BatchAnswer, answer,
        extract::{BatchBody, RequestContext},
        openapi::{NamedRecord, ProduceFailures},
    },
};
use axum::{extract::State, response::Response};

/// Writes many records. What is wrong with the bodies refuses them all; what Kafka decides is a result a record.
#[utoipa::path(
    post, path = "/produce/batch", tag = "produce",
    request_body(
        description = "A JSON array, or one JSON object a line",
        content((Vec<NamedRecord> = "application/json"), (NamedRecord = "application/x-ndjson"))
    ),
    responses(
        (status = 202, description = "All records are in Kafka", body = BatchAnswer),
        (status = 207, description = "Some records are in Kafka; where none is, the status is that of the failures", body = BatchAnswer),
        ProduceFailures
    )
)]
pub async fn many(
    State(state): State<AppState>,
    context: RequestContext,
    BatchBody { format, body }: BatchBody,
) -> Result<Response, ApiError> {
    let deadline = state.pipeline.deadline();
    let records = parse_batch(&body.bytes, format, &state.envelope_context(&context))?;
    // the body's share of the budget stays reserved: the records hold its bytes until Kafka has answered
    let verdicts = state.pipeline.submit(&records, deadline).await?;
    Ok(answer::many(&verdicts))
}

//! `POST /produce`: one record to the topic that its body names.

use crate::{
    envelope::{Target, parse_record},
    http::{
        ApiError, AppState, Sent, answer,
        extract::{ReadBody, RecordBody, RequestContext},
        openapi::{NamedRecord, ProduceFailures},
    },
    produce::{self, Receipt},
};
use axum::{extract::State, response::Response};

/// Writes one record to the topic that the body names.
#[utoipa::path(
    post, path = "/produce", tag = "produce",
    request_body(content = NamedRecord, description = "Read as JSON whatever common content type it has"),
    responses((status = 202, description = "The record is in Kafka", body = Sent), ProduceFailures)
)]
pub async fn one(
    State(state): State<AppState>,
    context: RequestContext,
    RecordBody(body): RecordBody,
) -> Result<Response, ApiError> {
    let receipt = send(&state, &context, body, Target::Named).await?;
    Ok(answer::one(&receipt))
}

/// Takes the one record of a body to its receipt.
pub(super) async fn send(
    state: &AppState,
    context: &RequestContext,
    body: ReadBody,
    target: Target<'_>,
) -> Result<Receipt, ApiError> {
    let deadline = state.pipeline.deadline();
    let record = parse_record(&body.bytes, target, &state.envelope_context(context))?;
    // the body's share of the budget stays reserved: the record holds its bytes until Kafka has answered
    let verdicts = state.pipeline.submit(std::slice::from_ref(&record), deadline).await?;
    let verdict = verdicts.into_iter().next();
    Ok(verdict.unwrap_or_else(|| Err(produce::Error::Internal("a record without a verdict".into())))?)
}

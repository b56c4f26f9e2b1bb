//! From an HTTP request to what a handler needs, or to a refusal that leaves the connection readable.

mod body;
mod context;
mod drain;
mod encoding;
mod head;
mod media_type;
mod origin;
mod prefer;
mod underway;
mod wait;

pub use body::{BatchBody, ReadBody, RecordBody};
pub use context::{RequestContext, X_REQUEST_ID};
pub use drain::{closing, refuse};
pub use head::check as check_head;
pub use prefer::Prefer;
pub use underway::{FAIR_BYTES_PER_SECOND, PATIENCE, Underway, paid_until};
pub use wait::{MAX_WAIT, wait_of};

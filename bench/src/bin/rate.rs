//! Fixed-rate load without coordinated omission: each client has its own connection and sends one request a second
//! at its own moment of it, and a latency counts from the moment that the schedule gives, not from the send.
//!
//! `rate --port PORT --path PATH --content-type TYPE --body FILE --clients N --seconds S`

use kafka_inlet_bench::{
    Arguments, Outcome,
    http::{Answer, connect, exchange},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// An answer that takes longer is a failure.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Tally {
    accepted: u64,
    failed: u64,
    /// Milliseconds from the scheduled send to the whole answer, of accepted requests.
    from_schedule: Vec<f64>,
    /// The same from the send itself: without the client's own timer, which has a resolution of a millisecond.
    from_send: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments = Arguments::read()?;
    let port: u16 = arguments.required("port")?;
    let clients: u32 = arguments.required("clients")?;
    let seconds: u32 = arguments.required("seconds")?;
    let request: Arc<[u8]> = request(&arguments)?.into();

    // connections are made before the clock starts
    let mut streams = Vec::new();
    for _ in 0..clients {
        streams.push(connect(port).await?);
    }
    let start = Instant::now() + Duration::from_millis(200);
    let mut tasks = JoinSet::new();
    for (index, stream) in (0..clients).zip(streams) {
        let first = start + Duration::from_secs(1) * index / clients;
        tasks.spawn(client(stream, port, request.clone(), first, seconds));
    }
    let mut all = Tally::default();
    for tally in tasks.join_all().await {
        all.accepted += tally.accepted;
        all.failed += tally.failed;
        all.from_schedule.extend(tally.from_schedule);
        all.from_send.extend(tally.from_send);
    }
    all.from_schedule.sort_by(f64::total_cmp);
    all.from_send.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "accepted": all.accepted,
            "failed": all.failed,
            "p50_ms": quantile(&all.from_schedule, 0.5),
            "p99_ms": quantile(&all.from_schedule, 0.99),
            "p999_ms": quantile(&all.from_schedule, 0.999),
            "max_ms": quantile(&all.from_schedule, 1.0),
            "from_send_p50_ms": quantile(&all.from_send, 0.5),
            "from_send_p99_ms": quantile(&all.from_send, 0.99),
        })
    );
    Ok(())
}

fn request(arguments: &Arguments) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let (path, content_type): (String, String) =
        (arguments.required("path")?, arguments.required("content-type")?);
    let body = std::fs::read(arguments.required::<String>("body")?)?;
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    Ok(request)
}

async fn client(stream: TcpStream, port: u16, request: Arc<[u8]>, first: Instant, seconds: u32) -> Tally {
    let mut tally = Tally::default();
    let mut stream = Some(stream);
    for second in 0..seconds {
        let scheduled = first + Duration::from_secs(1) * second;
        sleep_until(scheduled).await;
        let sent = Instant::now();
        if stream.is_none() {
            stream = connect(port).await.ok();
        }
        let answer = match &mut stream {
            Some(stream) => timeout(ANSWER_LIMIT, exchange(stream, &request)).await.ok().and_then(Result::ok),
            None => None,
        };
        match answer {
            Some(Answer { status: 200..300, .. }) => {
                tally.accepted += 1;
                tally.from_schedule.push(scheduled.elapsed().as_secs_f64() * 1e3);
                tally.from_send.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Some(_) => tally.failed += 1,
            None => {
                tally.failed += 1;
                stream = None;
            }
        }
    }
    tally
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

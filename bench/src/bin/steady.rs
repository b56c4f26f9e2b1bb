//! One client that sends a record each so many milliseconds, whatever became of those before, until its standard input ends.
//! A latency counts from the moment that the schedule gives. Each record has a number of its own.
//!
//! `steady --port PORT --topic TOPIC --interval-ms 25 --connections 8 --new-every 10`
//!
//! It keeps so many connections and uses them in turn; it takes a further one when none is free. Each `new-every`-th request is that
//! of a new client, with a connection of its own (0: none is). At the end it writes one line: `started` in seconds since 1970, and of each
//! request its number, the moment in seconds since then, the status or what else became of it, the milliseconds to
//! that, and the milliseconds that this program itself was late to send.

use kafka_inlet_bench::{
    Arguments, Outcome,
    http::{connect, exchange},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// A client that waits for longer has given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

struct Client {
    port: u16,
    topic: String,
    new_every: u64,
    /// The one first that has rested for the longest.
    free: Mutex<VecDeque<TcpStream>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments = Arguments::read()?;
    let client = Arc::new(Client {
        port: arguments.required("port")?,
        topic: arguments.required("topic")?,
        new_every: arguments.required("new-every")?,
        free: Mutex::new(VecDeque::new()),
    });
    for _ in 0..arguments.required::<usize>("connections")? {
        client.lock().push_back(connect(client.port).await?);
    }
    let interval = Duration::from_millis(arguments.required("interval-ms")?);
    let (end, mut ended) = oneshot::channel();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = end.send(());
    });

    let (start, started) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
    let mut requests = JoinSet::new();
    let mut due = start;
    for number in 0_u64.. {
        tokio::select! {
            _ = &mut ended => break,
            () = sleep_until(due) => (),
        }
        requests.spawn(request(Arc::clone(&client), number, start, due));
        due += interval;
    }
    let answers = requests.join_all().await;
    println!("{}", json!({ "started": started.as_secs_f64(), "answers": answers }));
    Ok(())
}

async fn request(client: Arc<Client>, number: u64, start: Instant, due: Instant) -> Value {
    let late = due.elapsed();
    let became = match timeout(ANSWER_LIMIT, client.post(number)).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.kind().to_string(),
        Err(_) => "no answer".to_owned(),
    };
    json!([number, (due - start).as_secs_f64(), became, milliseconds(due.elapsed()), milliseconds(late)])
}

impl Client {
    async fn post(&self, number: u64) -> io::Result<u16> {
        let is_new = self.new_every > 0 && number % self.new_every == self.new_every - 1;
        let kept = if is_new { None } else { self.take_free() };
        let mut stream = match kept {
            Some(stream) => stream,
            None => connect(self.port).await?,
        };
        let answer = exchange(&mut stream, self.message(number).as_bytes()).await?;
        if !answer.closes && !is_new {
            self.lock().push_back(stream);
        }
        Ok(answer.status)
    }

    /// One that the service has not closed meanwhile.
    fn take_free(&self) -> Option<TcpStream> {
        let mut free = self.lock();
        free.retain(|stream| {
            stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        free.pop_front()
    }

    fn message(&self, number: u64) -> String {
        let body = format!(r#"{{"topic":"{}","project":"shop","value":{{"number":{number}}}}}"#, self.topic);
        format!(
            "POST /produce HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<TcpStream>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

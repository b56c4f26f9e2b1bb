//! A way to a real broker that can be made slow, or be cut.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Lives as long as the test process.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: OnceLock<String>,
    /// Of what the broker says, in milliseconds.
    delay: AtomicU64,
    is_cut: AtomicBool,
    /// Both ends of each connection.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens, and leads nowhere before [`Proxy::lead_to`].
    pub fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accepting.accept(client);
            }
        });
        Self { address, shared }
    }

    pub fn lead_to(&self, bootstrap: String) {
        self.shared.target.set(bootstrap).unwrap();
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How late each answer is from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay.store(u64::try_from(delay.as_millis()).unwrap(), Relaxed);
    }

    /// Every connection ends, and each new one at once.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Relaxed);
        for end in self.shared.open.lock().unwrap().drain(..) {
            // it may have ended by itself
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.shared.is_cut.store(false, Relaxed);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: TcpStream) {
        let Some(target) = self.target.get() else { return };
        let Ok(broker) = TcpStream::connect(target) else { return };
        let mut open = self.open.lock().unwrap();
        // under the lock: nothing is open once `cut` has returned
        if self.is_cut.load(Relaxed) {
            return;
        }
        for end in [&client, &broker] {
            end.set_nodelay(true).unwrap();
            open.push(end.try_clone().unwrap());
        }
        let ends = (client.try_clone().unwrap(), broker.try_clone().unwrap());
        thread::spawn(move || pass_on(ends.0, ends.1, || Duration::ZERO));
        let shared = Arc::clone(self);
        thread::spawn(move || {
            pass_on(broker, client, || Duration::from_millis(shared.delay.load(Relaxed)));
        });
    }
}

/// Until one of the two ends.
fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: impl Fn() -> Duration) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        thread::sleep(delay());
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

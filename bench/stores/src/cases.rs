//! The stores, with as much of each as a spool needs, and what is measured of them.

use fjall::{KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use redb::{ReadableDatabase, TableDefinition};
use rustix::time::{ClockId, clock_gettime};
use std::{
    error::Error,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
/// Chunks of records, by the number of their first one.
type Chunks = Vec<(u64, Vec<u8>)>;

const CACHE: usize = 16 << 20;
const RECORD: usize = 400;
/// Records of a chunk of 64 KiB, and chunks of a commit of 1 MiB.
const RECORDS: u64 = 163;
const CHUNKS: u64 = 16;
const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

enum Store {
    Redb(redb::Database),
    Fjall(fjall::Database, fjall::Keyspace),
}

impl Store {
    fn open(name: &str, directory: &Path) -> Outcome<Self> {
        fs::create_dir_all(directory)?;
        if name == "redb" {
            let mut builder = redb::Database::builder();
            // as the spool has it: without the check a damaged file is taken at its word
            builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
            return Ok(Self::Redb(builder.create(directory.join("spool.redb"))?));
        }
        let database = fjall::Database::builder(directory).cache_size(CACHE as u64).open()?;
        let blobs = name.contains("blobs").then(KvSeparationOptions::default);
        let options =
            KeyspaceCreateOptions::default().max_memtable_size(CACHE as u64).with_kv_separation(blobs);
        let keyspace = database.keyspace("records", || options)?;
        Ok(Self::Fjall(database, keyspace))
    }

    /// One transaction, on the disk when this returns.
    fn commit(&self, insert: &Chunks, remove: &Chunks) -> Outcome {
        match self {
            Self::Redb(database) => {
                let transaction = database.begin_write()?;
                let mut table = transaction.open_table(TABLE)?;
                for (key, _) in remove {
                    table.remove(key)?;
                }
                for (key, chunk) in insert {
                    table.insert(key, chunk.as_slice())?;
                }
                drop(table);
                transaction.commit()?;
            }
            Self::Fjall(database, keyspace) => {
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                remove.iter().for_each(|(key, _)| batch.remove(keyspace, key.to_be_bytes()));
                insert
                    .iter()
                    .for_each(|(key, chunk)| batch.insert(keyspace, key.to_be_bytes(), chunk.as_slice()));
                batch.commit()?;
            }
        }
        Ok(())
    }

    /// The next chunks from this key on, as many as a commit has.
    fn read(&self, from: u64) -> Outcome<Chunks> {
        let mut chunks = Vec::new();
        match self {
            Self::Redb(database) => {
                for entry in database.begin_read()?.open_table(TABLE)?.range(from..)?.take(CHUNKS as usize) {
                    let (key, chunk) = entry?;
                    chunks.push((key.value(), chunk.value().to_vec()));
                }
            }
            Self::Fjall(_, keyspace) => {
                for entry in keyspace.range(from.to_be_bytes()..).take(CHUNKS as usize) {
                    let (key, chunk) = entry.into_inner()?;
                    chunks.push((u64::from_be_bytes(key.as_ref().try_into()?), chunk.to_vec()));
                }
            }
        }
        Ok(chunks)
    }

    fn compact(&mut self) -> Outcome {
        match self {
            Self::Redb(database) => _ = database.compact()?,
            Self::Fjall(_, keyspace) => {
                keyspace.rotate_memtable_and_wait()?;
                keyspace.major_compact()?;
            }
        }
        Ok(())
    }
}

pub fn run(case: &str, name: &str, place: &Path) -> Outcome {
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(60));
        std::process::abort();
    });
    let started = Instant::now();
    let mut store = Store::open(name, place)?;
    // the table is made where it is not there
    store.commit(&Vec::new(), &Vec::new())?;
    let opened = started.elapsed().as_secs_f64();
    let (started, cpu_before, written) = (Instant::now(), cpu(), status("io", "write_bytes")?);
    let records = match case {
        "append-64" => append(&store, 64)?,
        "append-300" => append(&store, 300)?,
        "fill" => fill(&store, 1_000_000, RECORDS, CHUNKS)?,
        // a group of 64 callers each
        "few" => fill(&store, 60_000, 64, 1)?,
        "count" => walk(&store, |_| Ok(()))?,
        "drain" => walk(&store, |chunks| store.commit(&Vec::new(), chunks))?,
        _ => return Err("no such case".into()),
    };
    println!("open {opened}\nrecords {records}");
    println!("per_second {}", records as f64 / started.elapsed().as_secs_f64());
    println!("cpu {}", (cpu() - cpu_before) * 1e6 / records as f64);
    println!("written {}", (status("io", "write_bytes")? - written) / (records as usize * RECORD) as f64);
    println!("memory {}", status("status", "VmHWM")? * 1024.0);
    if case == "drain" {
        thread::sleep(Duration::from_secs(2));
        println!("disk {}", disk(place)?);
        store.compact()?;
        println!("compacted {}", disk(place)?);
    }
    if ["fill", "few"].contains(&case) {
        println!("disk {}\nwait", disk(place)?);
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

/// Callers that wait for the disk, and a writer that commits together what has come meanwhile.
fn append(store: &Store, callers: u64) -> Outcome<u64> {
    let end = Instant::now() + Duration::from_secs(3);
    let (sender, requests) = mpsc::channel::<(Vec<u8>, mpsc::Sender<()>)>();
    for caller in 0..callers {
        let (sender, (answer, answered), record) = (sender.clone(), mpsc::channel(), random(caller, 1));
        thread::spawn(move || {
            while Instant::now() < end && sender.send((record.clone(), answer.clone())).is_ok() {
                if answered.recv().is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut next = 0;
    while let Ok(first) = requests.recv() {
        let group: Vec<_> = [first].into_iter().chain(requests.try_iter()).collect();
        let chunks = group.chunks(RECORDS as usize).zip((next..).step_by(RECORDS as usize));
        let chunk = |chunk: &[(Vec<u8>, _)]| chunk.iter().flat_map(|(record, _)| record).copied().collect();
        store.commit(&chunks.map(|(records, key)| (key, chunk(records))).collect(), &Vec::new())?;
        next += group.len() as u64;
        group.iter().try_for_each(|(_, answer)| answer.send(()))?;
    }
    Ok(next)
}

/// Chunks of so many records, so many to a commit.
fn fill(store: &Store, total: u64, records: u64, chunks: u64) -> Outcome<u64> {
    let keys: Vec<u64> = (0..total).step_by(records as usize).collect();
    for keys in keys.chunks(chunks as usize) {
        store.commit(&keys.iter().map(|&key| (key, random(key, records))).collect(), &Vec::new())?;
    }
    Ok(keys.len() as u64 * records)
}

/// Reads all from the front, and counts the records.
fn walk(store: &Store, each: impl Fn(&Chunks) -> Outcome) -> Outcome<u64> {
    let (mut next, mut records) = (0, 0);
    loop {
        let chunks = store.read(next)?;
        let Some((last, _)) = chunks.last() else { return Ok(records) };
        next = last + 1;
        records += chunks.iter().map(|(_, chunk)| chunk.len() / RECORD).sum::<usize>() as u64;
        each(&chunks)?;
    }
}

/// Records of random bytes, which no store can compress.
fn random(seed: u64, records: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = (0..records as usize * RECORD / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    });
    words.collect()
}

/// Seconds, user and system.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A figure that Linux has of this process.
fn status(file: &str, name: &str) -> Outcome<f64> {
    let text = fs::read_to_string(Path::new("/proc/self").join(file))?;
    let figure =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next());
    Ok(figure.ok_or("no such figure")?.parse()?)
}

/// All files, in order.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(self::files(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// Bytes that they take.
pub fn disk(directory: &Path) -> Outcome<f64> {
    let blocks: io::Result<u64> = files(directory)?.iter().map(|file| Ok(file.metadata()?.blocks())).sum();
    Ok(blocks? as f64 * 512.0)
}

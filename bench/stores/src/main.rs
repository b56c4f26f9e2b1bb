//! What the stores cost that a spool can be built on, and what becomes of records when one is killed or damaged.
//!
//! `cargo run --release -- DIRECTORY` prints a Markdown table. Each case is a process of its own, so that CPU and memory
//! are its store's. DIRECTORY should be on the disk that is meant; what is made there is removed.

mod cases;

use cases::Outcome;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// fjall has large values in its tables, or in files of their own.
const STORES: [&str; 3] = ["redb", "fjall", "fjall, blobs"];
/// Each of so many places of a store is damaged once.
const PLACES: usize = 20;
const PAGE: usize = 4096;
type Figures = BTreeMap<String, f64>;

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [directory] => compare(&Path::new(directory).join(format!("stores-{}", std::process::id()))),
        [case, store, directory] => cases::run(case, store, Path::new(directory)),
        _ => Err("usage: DIRECTORY".into()),
    }
}

fn compare(directory: &Path) -> Outcome {
    let mut columns = Vec::new();
    for store in STORES {
        fs::create_dir_all(directory)?;
        let column = column(store, directory);
        fs::remove_dir_all(directory)?;
        columns.push(column?);
    }
    println!("| | {} |\n|---|{}", STORES.join(" | "), "---:|".repeat(STORES.len()));
    for (row, (name, _)) in columns[0].iter().enumerate() {
        let cells: Vec<_> = columns.iter().map(|column| column[row].1.as_str()).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// All that is said of one store.
fn column(store: &str, directory: &Path) -> Outcome<Vec<(String, String)>> {
    let run = |case: &str, place: &str| -> Outcome<Figures> {
        attempt(case, store, &directory.join(place))?
            .map_err(|status| format!("{store}, {case}: {status}").into())
    };
    let megabytes = |bytes: f64| format!("{:.0}", bytes / 1e6);
    let (append_64, append_300) = (run("append-64", "a")?, run("append-300", "b")?);
    let filled = run("fill", "c")?;
    let (killed, closed) = (run("count", "c")?, run("count", "c")?);
    let drained = run("drain", "c")?;
    let mut column = vec![
        ("64 callers, a record each: requests/s, CPU-s/M", cost(&append_64)),
        ("300 callers, a record each: requests/s, CPU-s/M", cost(&append_300)),
        ("fill: records/s, CPU-s/M", cost(&filled)),
        ("fill: bytes written ÷ bytes of records", format!("{:.2}", filled["written"])),
        ("fill: MB on disk after it", megabytes(filled["disk"])),
        ("fill: peak MB of memory", megabytes(filled["memory"])),
        ("killed then: ms to open it", format!("{:.0}", killed["open"] * 1e3)),
        ("killed then: records lost", format!("{}", filled["records"] - killed["records"])),
        ("closed: ms to open it", format!("{:.0}", closed["open"] * 1e3)),
        ("drain: records/s, CPU-s/M", cost(&drained)),
        ("drain: peak MB of memory", megabytes(drained["memory"])),
        ("drain: MB on disk two seconds after it", megabytes(drained["disk"])),
        ("drain: the same after a compaction", megabytes(drained["compacted"])),
        ("drain: the same when closed then", megabytes(cases::disk(&directory.join("c"))?)),
    ];
    let records = run("few", "d")?["records"];
    column.push((
        "page of zeros: refused, **fewer records**, all there",
        fates(store, directory, records, false)?,
    ));
    column.push((
        "file cut off: refused, **fewer records**, all there",
        fates(store, directory, records, true)?,
    ));
    Ok(column.into_iter().map(|(name, cell)| (name.into(), cell)).collect())
}

fn cost(figures: &Figures) -> String {
    format!("{:.0}k, {:.2}", figures["per_second"] / 1e3, figures["cpu"])
}

/// Runs a case, which prints a name and a figure a line, and is killed when it says `wait`.
fn attempt(case: &str, store: &str, place: &Path) -> Outcome<Result<Figures, ExitStatus>> {
    let mut command = Command::new(env::current_exe()?);
    command.args([case, store]).arg(place).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut figures = Figures::new();
    for line in BufReader::new(child.stdout.take().ok_or("no pipe")?).lines() {
        match line?.split_once(' ') {
            Some((name, figure)) => _ = figures.insert(name.into(), figure.parse()?),
            None => {
                child.kill()?;
                child.wait()?;
                return Ok(Ok(figures));
            }
        }
    }
    let status = child.wait()?;
    Ok(if status.success() { Ok(figures) } else { Err(status) })
}

/// What becomes of a store with so many records where a page of a file is zeros, or its file ends there.
fn fates(store: &str, directory: &Path, records: f64, is_cut: bool) -> Outcome<String> {
    let (mut refused, mut fewer, mut unharmed) = (0, 0, 0);
    let (original, copy) = (directory.join("d"), directory.join("e"));
    let pages = used_pages(&original)?;
    for place in 0..PLACES {
        // the last tenth is spared: what was written last may be a torn transaction, of which nobody was told
        let (file, page) = &pages[place * pages.len() * 9 / 10 / PLACES];
        Command::new("cp").arg("-r").args([&original, &copy]).status()?;
        let damaged = copy.join(file.strip_prefix(&original)?);
        let mut bytes = fs::read(&damaged)?;
        if is_cut {
            bytes.truncate(page * PAGE)
        } else {
            bytes[page * PAGE..][..PAGE].fill(0)
        }
        fs::write(damaged, bytes)?;
        match attempt("count", store, &copy)? {
            Ok(found) if found["records"] == records => unharmed += 1,
            Ok(_) => fewer += 1,
            Err(_) => refused += 1,
        }
        fs::remove_dir_all(&copy)?;
    }
    Ok(format!("{refused}, **{fewer}**, {unharmed}"))
}

/// Each page that is not all zeros, of each file.
fn used_pages(directory: &Path) -> Outcome<Vec<(PathBuf, usize)>> {
    let mut pages = Vec::new();
    for path in cases::files(directory)? {
        let bytes = fs::read(&path)?;
        let used =
            bytes.chunks_exact(PAGE).enumerate().filter(|(_, page)| page.iter().any(|&byte| byte != 0));
        pages.extend(used.map(|(index, _)| (path.clone(), index)));
    }
    Ok(pages)
}

//! What the benchmark's programs share: their command line, and a client's side of HTTP.

pub mod http;

use std::{collections::HashMap, error::Error, fmt::Display, str::FromStr};

/// What `main` returns: the programs are run by `bench/run`, which shows the text of a failure.
pub type Outcome = Result<(), Box<dyn Error>>;

/// `--name value` pairs.
pub struct Arguments(HashMap<String, String>);

impl Arguments {
    pub fn read() -> Result<Self, String> {
        let mut pairs = HashMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let name =
                argument.strip_prefix("--").ok_or_else(|| format!("{argument}: must begin with --"))?;
            let value = arguments.next().ok_or_else(|| format!("--{name}: a value is missing"))?;
            pairs.insert(name.to_owned(), value);
        }
        Ok(Self(pairs))
    }

    pub fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, String> {
        let value = self.0.get(name).ok_or_else(|| format!("--{name} is missing"))?;
        value.parse().map_err(|error| format!("--{name} {value}: {error}"))
    }

    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T, String> {
        if self.0.contains_key(name) { self.required(name) } else { Ok(default) }
    }
}

/// The names of `count` topics: `topic` itself if there is one, else `topic-0`, `topic-1` and so on.
pub fn topic_names(topic: &str, count: usize) -> Vec<String> {
    if count == 1 {
        return vec![topic.to_owned()];
    }
    (0..count).map(|index| format!("{topic}-{index}")).collect()
}

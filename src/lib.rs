//! kafka-inlet: HTTP in, Kafka out.
//!
//! Data flows one way: HTTP request → records → delivery → receipts → HTTP response.
//!
//! | module | holds | may import |
//! |---|---|---|
//! | [`app`] | the composition root | everything |
//! | [`check`] | the `check` subcommand: what works between here and Kafka | config, kafka, produce |
//! | [`cli`] | flags and subcommands | config, produce, spool |
//! | [`config`] | settings; the only reader of the environment | produce |
//! | [`envelope`] | the native JSON bodies, turned into records; pure | produce |
//! | [`health`] | the `health` subcommand, for container health checks | config |
//! | [`http`] | routes, extractors, middleware, the listener | envelope, produce, lifecycle, config, telemetry |
//! | [`kafka`] | the librdkafka adapter behind [`produce::Producer`] | produce, lifecycle, config, telemetry |
//! | [`lifecycle`] | supervision, readiness, shutdown | produce |
//! | [`produce`] | the core: record, delivery, receipt, error, pipeline | telemetry |
//! | [`spool`] | the records and receipts that are kept on disk | produce, config, lifecycle, telemetry |
//! | [`telemetry`] | logs, metrics, the limiter of repeated log lines | config |
//!
//! The test `arrows` at the end of this file reads this table and every `use crate::` line.

pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod envelope;
pub mod health;
pub mod http;
pub mod kafka;
pub mod lifecycle;
pub mod produce;
pub mod spool;
pub mod telemetry;

#[cfg(test)]
mod arrows {
    //! Holds the table at the head of this file.

    use std::{
        collections::BTreeMap,
        fs,
        path::{Path, PathBuf},
    };

    /// Module → what its files may import of this crate, beside the module itself: the rows of the table.
    fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
        include_str!("lib.rs").lines().filter_map(|line| row(line.strip_prefix("//! | [`")?)).collect()
    }

    /// `name`] | what it holds | what it may import |
    fn row(text: &str) -> Option<(&str, Vec<&str>)> {
        let (module, cells) = text.split_once("`]")?;
        let (_, imports) = cells.strip_suffix(" |")?.rsplit_once(" | ")?;
        Some((module, imports.split(", ").collect()))
    }

    /// Crates that only one module, or a few, may name.
    const KEPT_APART: [(&str, &[&str]); 6] = [
        ("axum", &["http", "app"]),
        ("hyper", &["http"]),
        ("rdkafka", &["kafka", "check"]),
        ("envy", &["config"]),
        ("redb", &["spool"]),
        ("postcard", &["spool"]),
    ];

    fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }

    /// Each source file with its module, but for the crates' roots and the composition root.
    fn module_files() -> Vec<(String, PathBuf, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        let free = ["main.rs", "allocator.rs", "lib.rs", "app.rs"];
        files
            .into_iter()
            .filter_map(|path| {
                let first =
                    path.strip_prefix(&root).unwrap().iter().next().unwrap().to_str().unwrap().to_owned();
                let text = fs::read_to_string(&path).unwrap();
                (!free.contains(&first.as_str()))
                    .then(|| (first.trim_end_matches(".rs").to_owned(), path, text))
            })
            .collect()
    }

    /// The modules that a text imports by `crate::name`, its tests left out.
    fn imports(text: &str) -> Vec<String> {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut names = Vec::new();
        for (at, _) in text.match_indices("crate::") {
            let rest = &text[at + "crate::".len()..];
            let group = rest.strip_prefix('{').and_then(|group| group.split("};").next());
            match group {
                // one module a line, as rustfmt lays a group out
                Some(group) => {
                    names.extend(group.lines().filter_map(|line| line.trim().split([':', ',']).next()))
                }
                None => names.extend(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()),
            }
        }
        names
            .iter()
            .filter(|name| name.chars().all(|c| c.is_lowercase() || c == '_') && !name.is_empty())
            .map(|name| (*name).to_owned())
            .collect()
    }

    #[test]
    fn modules_import_only_what_the_table_allows() {
        let allowed = allowed();
        assert_eq!(allowed.len(), 12, "{allowed:?}");
        let mut wrong = Vec::new();
        for (module, path, text) in module_files() {
            // tests may reach across, to build what they need
            if path.ends_with("tests.rs") {
                continue;
            }
            let may = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in the table"));
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .map(|line| format!("{line}\n"))
                .collect();
            for import in imports(&code) {
                if import != module
                    && !may.contains(&import.as_str())
                    && allowed.contains_key(import.as_str())
                {
                    wrong.push(format!("{} imports {import}", path.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn libraries_stay_behind_their_module() {
        let mut wrong = Vec::new();
        for (module, path, text) in module_files() {
            for (library, modules) in KEPT_APART {
                let named = text.lines().any(|line| {
                    let line = line.trim_start();
                    line.starts_with(&format!("use {library}::"))
                        || line.starts_with(&format!("use {library}_"))
                });
                if named && !modules.contains(&module.as_str()) {
                    wrong.push(format!("{} uses {library}", path.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

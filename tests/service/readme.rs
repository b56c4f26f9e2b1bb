//! The README's examples do what it says.

use crate::support::{app::Service, process};
use serde::de::IgnoredAny;
use serde_json::Deserializer;
use std::{fs, path::Path, process::Command};

const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
/// Where the README's service listens.
const ADDRESS: &str = "localhost:4000";
/// Members of answers that depend on when and where.
const VARYING: [&str; 5] = ["timestamp", "offset", "partition", "brokers", "version"];

/// A shell block that calls curl, with what should come of it.
struct Example {
    command: String,
    /// From the block's info string, `sh status=207` for example; else 200 or 202.
    status: Option<u16>,
    /// The JSON block right after it.
    answer: Option<&'static str>,
}

fn examples() -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut follows = false;
    let mut rest = README;
    while let Some((before, block)) = rest.split_once("```") {
        let (info, block) = block.split_once('\n').unwrap();
        let (text, after) = block.split_once("```").unwrap();
        rest = after;
        if info.starts_with("sh") && text.starts_with("curl ") {
            let status = info.split_once("status=").map(|(_, status)| status.trim().parse().unwrap());
            examples.push(Example { command: text.trim_end().to_owned(), status, answer: None });
            follows = true;
        } else {
            if info == "json" && follows && before.trim().is_empty() {
                examples.last_mut().unwrap().answer = Some(text.trim_end());
            }
            follows = false;
        }
    }
    examples
}

/// The text with null in the place of each value that depends on when and where.
fn without_varying(answer: &str) -> String {
    VARYING.iter().fold(answer.to_owned(), |answer, name| {
        let name = format!("{name:?}:");
        let mut parts = answer.split(&name);
        let mut text = parts.next().unwrap().to_owned();
        for part in parts {
            let mut values = Deserializer::from_str(part).into_iter::<IgnoredAny>();
            values.next().unwrap().unwrap();
            text.extend([&name, "null", &part[values.byte_offset()..]]);
        }
        text
    })
}

#[tokio::test]
async fn every_curl_of_the_readme_gets_the_answer_beside_it() {
    let examples = examples();
    assert!(examples.len() >= 10, "only {} examples were found", examples.len());
    let service = Service::spawn_with(&["--embedded"], &[]).await;
    service.wait_ready().await;
    for Example { command, status, answer } in examples {
        assert!(command.contains(ADDRESS), "{command}");
        let here = command.replace(ADDRESS, &service.address().to_string());
        let here = here.replacen("curl ", r"curl -sS -w '\n%{http_code}' ", 1);
        let output = process::output(Command::new("sh").args(["-c", &here])).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{command}\n{:?}", output.stderr));
        let code: u16 = code.parse().unwrap();
        let expected = status.map_or([200, 202].contains(&code), |status| code == status);
        assert!(expected, "{code} of\n{command}\n{body}");
        if let Some(answer) = answer {
            assert_eq!(without_varying(body), without_varying(answer), "the answer of\n{command}");
        }
    }
}

/// `file::test` below `tests/service/`, or `path.rs::test` below `src/`.
#[test]
fn every_test_that_the_guarantees_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/GUARANTEES.md")).unwrap();
    let named: Vec<_> = text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")).collect();
    assert!(named.len() > 20, "{named:?}");
    for (file, test) in named {
        let path = if file.ends_with(".rs") {
            root.join("src").join(file)
        } else {
            root.join("tests/service").join(format!("{file}.rs"))
        };
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(source.contains(&format!("fn {test}(")), "{file}::{test} does not exist");
    }
}

/// Each row of a table whose last column is `proven by`: a test, or why there is none.
#[test]
fn every_promise_of_the_guarantees_names_its_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/GUARANTEES.md")).unwrap();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---");
    let last_cell = |row: &str| row.trim_end_matches('|').rsplit('|').next().unwrap().trim().to_owned();
    let (mut is_promise, mut rows) = (false, 0);
    for (before, row) in [""].into_iter().chain(text.lines()).zip(text.lines()).filter(|(_, row)| is_row(row))
    {
        if !before.starts_with('|') {
            // a table's head
            is_promise = last_cell(row) == "proven by";
            continue;
        }
        let proof = last_cell(row);
        let names_a_test = proof.split('`').skip(1).step_by(2).any(|code| code.contains("::"));
        assert!(!is_promise || names_a_test || proof.starts_with("not tested: "), "no test is named:\n{row}");
        rows += usize::from(is_promise);
    }
    assert!(rows > 30, "{rows} rows");
}

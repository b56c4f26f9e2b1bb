//! The process's environment and the file `.env`.

use super::{Faults, variables::Variables};
use std::{ffi::OsString, fs, io, path::Path};

/// Merges the file's variables into the given ones, which win. What cannot be read is a fault; of values that
/// are not UTF-8 only those `is_ours` says so of.
pub(super) fn collect(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    dotenv: &Path,
    is_ours: impl Fn(&str) -> bool,
    faults: &mut Faults,
) -> Variables {
    let mut variables = read_dotenv(dotenv, faults);
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => {
                variables.insert(name, value);
            }
            Err(_) if is_ours(&name) => {
                variables.remove(&name);
                faults.add(&name, "its value is not UTF-8");
            }
            Err(_) => {}
        }
    }
    variables
}

fn read_dotenv(path: &Path, faults: &mut Faults) -> Variables {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Variables::new(),
        Err(error) => {
            faults.add(".env", format!("it cannot be read: {error}"));
            return Variables::new();
        }
    };
    let mut variables = Variables::new();
    let mut read_to = 0;
    for entry in dotenvy::from_read_iter(text.as_bytes()) {
        match entry {
            Ok((name, value)) => {
                read_to = position(&text, read_to, &name);
                variables.insert(name, value);
            }
            // the line itself may hold a password, so only its number is told
            Err(dotenvy::Error::LineParse(part, _)) => {
                read_to = position(&text, read_to, &part);
                faults.add(
                    &format!(".env line {}", line_number(&text, read_to)),
                    "it must be NAME=value; a value with spaces or any of $ # \" needs single quotes around it",
                );
            }
            Err(_) => faults.add(".env", "it cannot be read"),
        }
    }
    variables
}

/// Where `part` stands at or after `from`.
fn position(text: &str, from: usize, part: &str) -> usize {
    text.get(from..).and_then(|rest| rest.find(part)).map_or(from, |found| from + found)
}

fn line_number(text: &str, position: usize) -> usize {
    1 + text.bytes().take(position).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn collected(environment: &[(&str, &[u8])], dotenv: &str) -> (Variables, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(".env");
        fs::write(&path, dotenv).expect("written");
        let environment = environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from_vec(value.to_vec())));
        let mut faults = Faults::default();
        let variables = collect(environment, &path, |name| name == "PORT", &mut faults);
        (variables, faults.to_string())
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let (variables, faults) = collected(&[("PORT", b"1")], "# comment\nPORT=2\nHOST='::1'\n");
        assert_eq!(variables, [("PORT".into(), "1".into()), ("HOST".into(), "::1".into())].into());
        assert_eq!(faults, "");
    }

    #[test]
    fn a_malformed_file_is_a_fault_that_names_the_line_and_not_its_text() {
        let (_, faults) = collected(&[], "PORT=1\n\nKAFKA_SASL_PASSWORD=hunter2 and more\n");
        assert!(faults.starts_with(".env line 3: "), "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }

    #[test]
    fn no_file_is_no_fault() {
        let mut faults = Faults::default();
        let variables = collect([], Path::new("/no/such/.env"), |_| true, &mut faults);
        assert!(variables.is_empty() && faults.is_empty());
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_a_fault_if_the_variable_is_ours() {
        let (variables, faults) = collected(&[("PORT", b"\xff"), ("OTHER", b"\xff")], "PORT=2");
        assert!(variables.is_empty());
        assert_eq!(faults, "PORT: its value is not UTF-8");
    }
}

//! What is wrong with the settings, all of it at once.

use std::fmt;

/// Everything that is wrong with the settings. `Display` has one line a fault and never a secret.
#[derive(Debug, Default, thiserror::Error)]
pub struct Faults(Vec<Fault>);

#[derive(Debug)]
struct Fault {
    variable: String,
    text: String,
}

/// A setting that is legal and probably not what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(String);

impl Warning {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Faults {
    /// Parses a variable. None where it is unset, and where it is faulty, which is then noted.
    /// `parse` returns a clause that says what is allowed.
    pub(super) fn read<T>(
        &mut self,
        variable: &str,
        given: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = given?;
        match parse(given.trim()) {
            Ok(value) => Some(value),
            Err(allowed) if may_be_shown(variable, given) => {
                self.add(variable, format!("{:?}: {allowed}", shortened(given)));
                None
            }
            Err(allowed) => {
                self.add(variable, allowed);
                None
            }
        }
    }

    pub(super) fn add(&mut self, variable: &str, text: impl Into<String>) {
        self.0.push(Fault { variable: variable.into(), text: text.into() });
    }

    /// Whether one of the variables already has a fault, so that a relation between them says nothing.
    pub(super) fn concern(&self, variables: &[&str]) -> bool {
        self.0.iter().any(|fault| variables.contains(&fault.variable.as_str()))
    }

    /// True where the settings can be used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", fault.variable, fault.text)?;
        }
        Ok(())
    }
}

/// A value with an `@` may be a URL with a password in it.
fn may_be_shown(variable: &str, value: &str) -> bool {
    let secret = ["PASSWORD", "PASSPHRASE", "SECRET", "TOKEN"].iter().any(|word| variable.contains(word));
    !secret && !value.contains('@')
}

fn shortened(value: &str) -> String {
    const SHOWN: usize = 100;
    if value.chars().count() <= SHOWN {
        return value.to_owned();
    }
    value.chars().take(SHOWN).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(_: &str) -> Result<(), String> {
        Err("it must be something else".into())
    }

    #[test]
    fn a_fault_names_the_variable_its_value_and_what_is_allowed() {
        let mut faults = Faults::default();
        faults.read("PORT", Some("abc"), refuse);
        assert_eq!(faults.to_string(), r#"PORT: "abc": it must be something else"#);
    }

    #[test]
    fn a_value_that_may_hold_a_password_is_not_shown() {
        let mut faults = Faults::default();
        faults.read("KAFKA_SASL_PASSWORD", Some("hunter2"), refuse);
        faults.read("KAFKA_BROKERS", Some("kafka://me:hunter2@broker"), refuse);
        assert!(!faults.to_string().contains("hunter2"), "{faults}");
        assert!(!format!("{faults:?}").contains("hunter2"));
    }

    #[test]
    fn a_long_value_is_cut() {
        let mut faults = Faults::default();
        faults.read("PORT", Some(&"x".repeat(10_000)), refuse);
        assert!(faults.to_string().len() < 200);
    }
}

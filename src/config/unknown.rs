//! Variables that look like ours and are not: a misspelt setting would otherwise be ignored in silence.

use super::{Warning, variables::Variables};

/// A warning for each variable whose first word is the first word of one of `known`, or whose name is at most
/// two edits from one. Kubernetes' service links are not meant for us and are left out.
pub(super) fn warnings(variables: &Variables, known: &[String]) -> Vec<Warning> {
    variables
        .keys()
        .filter(|name| {
            !known.contains(name)
                && !name.starts_with(super::kafka::PROPERTY_PREFIX)
                && !is_service_link(name)
        })
        .filter_map(|name| warning(name, known))
        .collect()
}

fn warning(name: &str, known: &[String]) -> Option<Warning> {
    /// Shorter names are near one another by chance.
    const LONG_ENOUGH: usize = 8;
    let nearest = known.iter().map(|own| (edits(name, own), own)).min()?;
    let is_misspelt = nearest.0 <= 2 && name.len() >= LONG_ENOUGH;
    let first_word = |name: &str| name.split_once('_').map(|(word, _)| word.to_owned());
    let begins_like_ours =
        first_word(name).is_some_and(|word| known.iter().any(|own| first_word(own).as_ref() == Some(&word)));
    if is_misspelt {
        Some(Warning::new(format!("{name} is not a setting and is ignored; did you mean {}?", nearest.1)))
    } else if begins_like_ours {
        Some(Warning::new(format!("{name} is not a setting and is ignored; .env.example lists the settings")))
    } else {
        None
    }
}

/// Kubernetes sets `<SERVICE>_PORT`, `<SERVICE>_PORT_…` and `<SERVICE>_SERVICE_…` for every Service near a pod.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_PORT") || name.contains("_PORT_") || name.contains("_SERVICE_")
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = *above;
            left = substituted.min(left + 1).min(diagonal + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(name: &str) -> Option<String> {
        let variables = [(name.to_owned(), "1".to_owned())].into();
        let known = ["PORT", "HOST", "PARTITIONER", "KAFKA_BROKERS", "LOG_LEVEL", "MAX_BODY_BYTES"];
        let known = known.map(str::to_owned);
        warnings(&variables, &known).first().map(ToString::to_string)
    }

    #[test]
    fn a_misspelt_name_is_told_the_right_one() {
        for (name, meant) in [
            ("KAKFA_BROKERS", "KAFKA_BROKERS"),
            ("PARTITONER", "PARTITIONER"),
            ("MAX_BODY_BYTE", "MAX_BODY_BYTES"),
        ] {
            assert!(
                warned(name).is_some_and(|text| text.contains(&format!("did you mean {meant}?"))),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_that_begins_like_ours_is_warned_of() {
        for name in ["KAFKA_FLAVOUR", "MAX_SOMETHING_ELSE", "LOG_COLOUR"] {
            assert!(warned(name).is_some(), "{name}");
        }
    }

    #[test]
    fn other_peoples_variables_are_left_alone() {
        for name in ["PATH", "HOME", "HOSTNAME", "SORT", "LANG", "KAFKAESQUE", "PORT_"] {
            assert_eq!(warned(name), None, "{name}");
        }
    }

    #[test]
    fn kubernetes_service_links_are_left_alone() {
        for name in
            ["KAFKA_PORT", "KAFKA_PORT_9092_TCP_ADDR", "KAFKA_SERVICE_HOST", "KAFKA_BROKER_SERVICE_PORT_TCP"]
        {
            assert_eq!(warned(name), None, "{name}");
        }
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("same", "same"), 0);
    }
}

//! The names of the variables, taken from the structs that read them, and the reading itself.

use super::Faults;
use serde::{
    Deserializer,
    de::{DeserializeOwned, Visitor, value::Error as ValueError},
    forward_to_deserialize_any,
};
use std::collections::BTreeMap;

/// Name and value; blank ones are not in it, because a blank variable counts as unset.
pub(super) type Variables = BTreeMap<String, String>;

/// Variables with one prefix: a flat struct of `Option<String>` fields, each named like its variable in lower
/// case without the prefix. Text only, since envy stops at the first value of a wrong type and faults are
/// reported together.
pub(super) trait Group: DeserializeOwned {
    const PREFIX: &str;

    /// The full names of the group's variables.
    fn names() -> Vec<String> {
        field_names::<Self>().iter().map(|field| Self::PREFIX.to_owned() + &field.to_uppercase()).collect()
    }

    fn read(variables: &Variables, faults: &mut Faults) -> Option<Self> {
        // envy folds the case of names and refuses the duplicates which that makes, so it sees exact names only
        let own = Self::names().into_iter().filter_map(|name| {
            let value = variables.get(&name)?.clone();
            Some((name, value))
        });
        envy::prefixed(Self::PREFIX)
            .from_iter(own)
            .map_err(|error| faults.add(&format!("{}*", Self::PREFIX), error.to_string()))
            .ok()
    }
}

/// The fields that serde's derived code announces to a deserializer.
fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // always an error: the probe stops once it has been told
    let _: Result<T, ValueError> = T::deserialize(FieldProbe(&mut fields));
    fields
}

struct FieldProbe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldProbe<'_> {
    type Error = ValueError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ValueError> {
        *self.0 = fields;
        Err(serde::de::Error::custom("only the names were wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
        Err(serde::de::Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Example {
        colour: Option<String>,
        front_door: Option<String>,
    }

    impl Group for Example {
        const PREFIX: &str = "HOUSE_";
    }

    #[test]
    fn names_come_from_the_fields() {
        assert_eq!(Example::names(), ["HOUSE_COLOUR", "HOUSE_FRONT_DOOR"]);
    }

    #[test]
    fn only_exact_names_are_read() {
        let variables = [("HOUSE_COLOUR", "red"), ("house_colour", "blue"), ("FRONT_DOOR", "open")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let mut faults = Faults::default();
        let example = Example::read(&variables, &mut faults).expect("readable");
        assert_eq!(example.colour.as_deref(), Some("red"));
        assert_eq!(example.front_door, None);
        assert!(faults.is_empty());
    }
}

//! An object whose keys are the user's.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// Entries in the order of the file. The same key twice is an error: which of them was meant nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed<K, V>(pub Vec<(K, V)>);

impl<'de, K: Deserialize<'de> + PartialEq, V: Deserialize<'de>> Deserialize<'de> for Keyed<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + PartialEq, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
    type Value = Keyed<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(K, V)> = Vec::new();
        while let Some(key) = map.next_key::<K>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("the same key is there twice"));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Keyed(entries))
    }
}

impl<K: JsonSchema, V: JsonSchema> JsonSchema for Keyed<K, V> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}Of{}", V::schema_name(), K::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (keys, values) = (generator.subschema_for::<K>(), generator.subschema_for::<V>());
        json_schema!({"type": "object", "propertyNames": keys, "additionalProperties": values})
    }
}

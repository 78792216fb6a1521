//! Numbers within a range, and lists that are not empty.

use serde::de::{Deserialize, Deserializer, Error};

/// For an optional number from `LOW` to `HIGH`.
pub(super) fn within<'de, T, D, const LOW: i64, const HIGH: i64>(
    deserializer: D,
) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de> + Copy + Into<i64>,
    D: Deserializer<'de>,
{
    let number = Option::<T>::deserialize(deserializer)?;
    number.map(|number| check::<T, D>(number, LOW, HIGH)).transpose()
}

fn check<'de, T: Copy + Into<i64>, D: Deserializer<'de>>(
    number: T,
    low: i64,
    high: i64,
) -> Result<T, D::Error> {
    let value = number.into();
    if (low..=high).contains(&value) {
        return Ok(number);
    }
    Err(D::Error::custom(format_args!("{value} cannot be used: expected a number from {low} to {high}")))
}

/// For a port that must be there.
pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    check::<u16, D>(u16::deserialize(deserializer)?, 1, 65535)
}

/// For a list that must be there, with at least one item.
pub(super) fn at_least_one<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    some(deserializer)?.ok_or_else(|| D::Error::custom("expected a list with at least one item"))
}

/// For a list that has at least one item where it is there.
pub(super) fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<T>>::deserialize(deserializer)?;
    if list.as_ref().is_some_and(Vec::is_empty) {
        return Err(D::Error::custom("the list is empty; expected at least one item"));
    }
    Ok(list)
}

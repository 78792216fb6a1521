//! Properties of a systemd unit as they are written (`MemoryMax=1G`), and as systemd takes them over D-Bus: what
//! `systemd-run -p` does, for the properties that make sense for the scope of a container.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::nspawn;
use crate::quantity::{self, amount, digits};

/// A property of a scope, by the name and in the type that `StartTransientUnit` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitProperty {
    /// The name, which for some is another than the written one (`CPUQuota=`: `CPUQuotaPerSecUSec`).
    pub name: String,
    /// The value.
    pub value: PropertyValue,
}

/// The value of a property, by its D-Bus type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PropertyValue {
    /// `b`.
    Bool(bool),
    /// `u`: a share of the machine, of `u32::MAX`.
    Share(u32),
    /// `t`; `u64::MAX` is no limit.
    Number(u64),
    /// `s`.
    Text(String),
    /// `as`.
    Texts(Vec<String>),
    /// `ay`: bits, the least significant one of the first byte first.
    Bits(Vec<u8>),
    /// `a(ss)`: a device and what may be done with it.
    Devices(Vec<(String, String)>),
    /// `a(st)`: a device or a path, and a number for it.
    PerDevice(Vec<(String, u64)>),
}

/// Why a property cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PropertyError {
    /// There is no `=`.
    #[error("{0:?} is no assignment; write PROPERTY=VALUE")]
    NoAssignment(String),
    /// Not one of those that are known here.
    #[error(
        "the unit property {0:?} cannot be set for a container's scope; `systemctl set-property` may be able to, \
         once the container runs"
    )]
    Unknown(String),
    /// The value is not one.
    #[error("{value:?} is no value for {name}: expected {expected}")]
    Value {
        /// The property.
        name: String,
        /// What was given.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
}

/// How the value of a property is written.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Bool,
    Text,
    Words,
    Weight,
    /// Bytes, or a percentage of the machine's.
    Memory,
    /// A number, or a percentage of the machine's.
    Tasks,
    Quota,
    Span,
    Numbers,
    Devices,
    /// A path and bytes or operations a second.
    Rates,
    /// A path and a weight.
    Weights,
}

/// Written name, name on the bus, kind.
const KNOWN: &[(&str, &str, Kind)] = &[
    ("Description", "Description", Kind::Text),
    ("Documentation", "Documentation", Kind::Words),
    ("Wants", "Wants", Kind::Words),
    ("Requires", "Requires", Kind::Words),
    ("BindsTo", "BindsTo", Kind::Words),
    ("PartOf", "PartOf", Kind::Words),
    ("Conflicts", "Conflicts", Kind::Words),
    ("Before", "Before", Kind::Words),
    ("After", "After", Kind::Words),
    ("CollectMode", "CollectMode", Kind::Text),
    ("TimeoutStopSec", "TimeoutStopUSec", Kind::Span),
    ("RuntimeMaxSec", "RuntimeMaxUSec", Kind::Span),
    ("CPUAccounting", "CPUAccounting", Kind::Bool),
    ("IOAccounting", "IOAccounting", Kind::Bool),
    ("IPAccounting", "IPAccounting", Kind::Bool),
    ("MemoryAccounting", "MemoryAccounting", Kind::Bool),
    ("TasksAccounting", "TasksAccounting", Kind::Bool),
    ("CPUWeight", "CPUWeight", Kind::Weight),
    ("StartupCPUWeight", "StartupCPUWeight", Kind::Weight),
    ("CPUQuota", "CPUQuotaPerSecUSec", Kind::Quota),
    ("CPUQuotaPeriodSec", "CPUQuotaPeriodUSec", Kind::Span),
    ("AllowedCPUs", "AllowedCPUs", Kind::Numbers),
    ("StartupAllowedCPUs", "StartupAllowedCPUs", Kind::Numbers),
    ("AllowedMemoryNodes", "AllowedMemoryNodes", Kind::Numbers),
    ("StartupAllowedMemoryNodes", "StartupAllowedMemoryNodes", Kind::Numbers),
    ("MemoryMin", "MemoryMin", Kind::Memory),
    ("MemoryLow", "MemoryLow", Kind::Memory),
    ("MemoryHigh", "MemoryHigh", Kind::Memory),
    ("MemoryMax", "MemoryMax", Kind::Memory),
    ("MemorySwapMax", "MemorySwapMax", Kind::Memory),
    ("MemoryZSwapMax", "MemoryZSwapMax", Kind::Memory),
    ("TasksMax", "TasksMax", Kind::Tasks),
    ("IOWeight", "IOWeight", Kind::Weight),
    ("StartupIOWeight", "StartupIOWeight", Kind::Weight),
    ("IODeviceWeight", "IODeviceWeight", Kind::Weights),
    ("IOReadBandwidthMax", "IOReadBandwidthMax", Kind::Rates),
    ("IOWriteBandwidthMax", "IOWriteBandwidthMax", Kind::Rates),
    ("IOReadIOPSMax", "IOReadIOPSMax", Kind::Rates),
    ("IOWriteIOPSMax", "IOWriteIOPSMax", Kind::Rates),
    ("DevicePolicy", "DevicePolicy", Kind::Text),
    ("DeviceAllow", "DeviceAllow", Kind::Devices),
    ("OOMPolicy", "OOMPolicy", Kind::Text),
    ("ManagedOOMSwap", "ManagedOOMSwap", Kind::Text),
    ("ManagedOOMMemoryPressure", "ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMPreference", "ManagedOOMPreference", Kind::Text),
];

/// The name and the value on the bus.
impl fmt::Display for UnitProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = ", self.name)?;
        match &self.value {
            PropertyValue::Bool(value) => write!(f, "{value}"),
            PropertyValue::Share(share) => {
                write!(f, "{:.2} %", f64::from(*share) * 100.0 / f64::from(u32::MAX))
            }
            PropertyValue::Number(u64::MAX) => write!(f, "infinity"),
            PropertyValue::Number(number) => write!(f, "{number}"),
            PropertyValue::Text(text) => write!(f, "{text}"),
            PropertyValue::Texts(texts) => write!(f, "{}", texts.join(" ")),
            PropertyValue::Bits(bytes) => {
                let numbers = (0..bytes.len() * 8).filter(|i| bytes[i / 8] & (1 << (i % 8)) != 0);
                write!(f, "{}", numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" "))
            }
            PropertyValue::Devices(devices) => {
                devices.iter().try_for_each(|(path, access)| write!(f, "{path} {access}"))
            }
            PropertyValue::PerDevice(devices) => {
                devices.iter().try_for_each(|(path, number)| write!(f, "{path} {number}"))
            }
        }
    }
}

impl FromStr for UnitProperty {
    type Err = PropertyError;

    fn from_str(text: &str) -> Result<UnitProperty, PropertyError> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| PropertyError::NoAssignment(text.to_owned()))?;
        let known = KNOWN.iter().find(|(written, ..)| *written == name);
        let (_, on_bus, kind) = known.ok_or_else(|| PropertyError::Unknown(name.to_owned()))?;
        let value = value.trim();
        let parsed = kind.parse(value).ok_or_else(|| PropertyError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            expected: kind.expected(),
        })?;
        // A share has a property of its own beside that of the amount.
        let suffix = if matches!(parsed, PropertyValue::Share(_)) { "Scale" } else { "" };
        Ok(UnitProperty { name: format!("{on_bus}{suffix}"), value: parsed })
    }
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Kind::Bool => "yes or no",
            Kind::Text => "text",
            Kind::Words => "words",
            Kind::Weight => "a number from 1 to 10000",
            Kind::Memory => "bytes, such as 512M, a percentage, or infinity",
            Kind::Tasks => "a number, a percentage, or infinity",
            Kind::Quota => "a percentage of one processor, such as 150%",
            Kind::Span => "a time, such as 90s or 1min 30s, or infinity",
            Kind::Numbers => "numbers and ranges, such as 0-3,7",
            Kind::Devices => "a device and some of the letters r, w and m, such as /dev/fuse rwm",
            Kind::Rates => "a path and a number for each second, such as /dev/sda 10M",
            Kind::Weights => "a path and a number from 1 to 10000, such as /dev/sda 200",
        }
    }

    /// An empty value resets, as in a unit file.
    fn parse(self, value: &str) -> Option<PropertyValue> {
        use PropertyValue as V;
        let reset = value.is_empty();
        Some(match self {
            Kind::Bool => V::Bool(nspawn::boolean(value).ok()?),
            Kind::Text if reset => return None,
            Kind::Text => V::Text(value.to_owned()),
            Kind::Words => V::Texts(value.split_whitespace().map(str::to_owned).collect()),
            Kind::Weight if reset => V::Number(u64::MAX),
            Kind::Weight => V::Number(weight(value)?),
            Kind::Memory | Kind::Tasks if reset || value == "infinity" => V::Number(u64::MAX),
            Kind::Memory | Kind::Tasks if value.ends_with('%') => V::Share(share(value)?),
            Kind::Memory => V::Number(amount(value, 1024)?),
            Kind::Tasks => V::Number(value.parse().ok().filter(|number| *number > 0)?),
            Kind::Quota if reset => V::Number(u64::MAX),
            // Of a second, in microseconds: a hundredth of a percent is 100 of them.
            Kind::Quota => V::Number(permyriad(value)?.checked_mul(100).filter(|quota| *quota > 0)?),
            Kind::Span => V::Number(span(value)?),
            Kind::Numbers => V::Bits(bits(value)?),
            Kind::Devices if reset => V::Devices(Vec::new()),
            Kind::Devices => V::Devices(vec![device(value)?]),
            Kind::Rates | Kind::Weights if reset => V::PerDevice(Vec::new()),
            Kind::Rates => V::PerDevice(vec![per_device(value, |rate| match rate {
                "infinity" => Some(u64::MAX),
                // Rates count in thousands, amounts in 1024s.
                rate => amount(rate, 1000),
            })?]),
            Kind::Weights => V::PerDevice(vec![per_device(value, weight)?]),
        })
    }
}

/// `idle` is systemd's word for a weight of 0.
fn weight(value: &str) -> Option<u64> {
    match value {
        "idle" => Some(0),
        value => value.parse().ok().filter(|weight| (1..=10_000).contains(weight)),
    }
}

/// Hundredths of a percent.
fn permyriad(value: &str) -> Option<u64> {
    let number = value.strip_suffix('%')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 2 {
        return None;
    }
    digits(whole)?.checked_mul(100)?.checked_add(digits(&format!("{fraction:0<2}"))?)
}

fn share(value: &str) -> Option<u32> {
    let part = permyriad(value).filter(|part| *part <= 10_000)?;
    u32::try_from((part * u64::from(u32::MAX)).div_ceil(10_000)).ok()
}

/// Microseconds; a number without a unit is seconds.
fn span(value: &str) -> Option<u64> {
    if value == "infinity" { Some(u64::MAX) } else { quantity::microseconds(value, 1_000_000) }
}

/// A bit for each processor or memory node.
fn bits(value: &str) -> Option<Vec<u8>> {
    let numbers = quantity::cpus(value)?;
    let mut bits = vec![0; numbers.last().map_or(0, |last| *last as usize / 8 + 1)];
    for number in numbers {
        bits[number as usize / 8] |= 1 << (number % 8);
    }
    Some(bits)
}

fn device(value: &str) -> Option<(String, String)> {
    let (path, access) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
    let access = access.trim_start();
    access.chars().all(|letter| "rwm".contains(letter)).then(|| (path.to_owned(), access.to_owned()))
}

fn per_device(value: &str, number: impl Fn(&str) -> Option<u64>) -> Option<(String, u64)> {
    let (path, rest) = value.split_once(char::is_whitespace)?;
    Some((path.to_owned(), number(rest.trim_start())?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (String, PropertyValue) {
        let property: UnitProperty = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        (property.name, property.value)
    }

    #[test]
    fn values_have_the_types_that_systemd_takes() {
        use PropertyValue as V;
        let device = |path: &str, access: &str| V::Devices(vec![(path.into(), access.into())]);
        for (text, name, value) in [
            ("MemoryMax=512M", "MemoryMax", V::Number(512 << 20)),
            ("MemoryMax=1 G", "MemoryMax", V::Number(1 << 30)),
            ("MemoryHigh=infinity", "MemoryHigh", V::Number(u64::MAX)),
            ("MemoryMax=50%", "MemoryMaxScale", V::Share(0x8000_0000)),
            ("MemoryMax=100%", "MemoryMaxScale", V::Share(u32::MAX)),
            ("TasksMax=100", "TasksMax", V::Number(100)),
            ("CPUQuota=150%", "CPUQuotaPerSecUSec", V::Number(1_500_000)),
            ("CPUQuota=0.5%", "CPUQuotaPerSecUSec", V::Number(5_000)),
            ("CPUQuota=", "CPUQuotaPerSecUSec", V::Number(u64::MAX)),
            ("CPUQuotaPeriodSec=10ms", "CPUQuotaPeriodUSec", V::Number(10_000)),
            ("CPUWeight=idle", "CPUWeight", V::Number(0)),
            ("IOWeight=200", "IOWeight", V::Number(200)),
            ("AllowedCPUs=0-2,9", "AllowedCPUs", V::Bits(vec![0b111, 0b10])),
            ("AllowedCPUs=", "AllowedCPUs", V::Bits(vec![])),
            ("DevicePolicy=closed", "DevicePolicy", V::Text("closed".into())),
            ("DeviceAllow=/dev/fuse rw", "DeviceAllow", device("/dev/fuse", "rw")),
            ("DeviceAllow=char-pts", "DeviceAllow", device("char-pts", "")),
            ("DeviceAllow=", "DeviceAllow", V::Devices(vec![])),
            (
                "IOReadBandwidthMax=/var 10M",
                "IOReadBandwidthMax",
                V::PerDevice(vec![("/var".into(), 10_000_000)]),
            ),
            ("IOReadIOPSMax=/var infinity", "IOReadIOPSMax", V::PerDevice(vec![("/var".into(), u64::MAX)])),
            ("After=a.target b.target", "After", V::Texts(vec!["a.target".into(), "b.target".into()])),
            ("TimeoutStopSec=1min 30s", "TimeoutStopUSec", V::Number(90_000_000)),
            ("TimeoutStopSec=5", "TimeoutStopUSec", V::Number(5_000_000)),
            ("MemoryAccounting=on", "MemoryAccounting", V::Bool(true)),
            ("Description=a = b", "Description", V::Text("a = b".into())),
        ] {
            assert_eq!(parsed(text), (name.to_owned(), value), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (text, word) in [
            ("MemoryMax", "no assignment"),
            ("=5", "\"\" cannot be set"),
            ("Delegate=no", "\"Delegate\" cannot be set"),
            ("ExecStart=/bin/sh", "\"ExecStart\" cannot be set"),
            ("MemoryMax=lots", "\"lots\" is no value for MemoryMax"),
            ("MemoryMax=101%", "MemoryMax"),
            ("MemoryMax=99999999999999999999", "MemoryMax"),
            ("MemoryMax=17179869184G", "MemoryMax"),
            ("CPUQuota=0%", "CPUQuota"),
            ("CPUQuota=50", "expected a percentage"),
            ("CPUWeight=0", "from 1 to 10000"),
            ("TasksMax=0", "TasksMax"),
            ("AllowedCPUs=3-1", "AllowedCPUs"),
            ("AllowedCPUs=0-99999999", "AllowedCPUs"),
            ("DeviceAllow=/dev/fuse rwx", "DeviceAllow"),
            ("IOReadBandwidthMax=/dev/sda", "IOReadBandwidthMax"),
            ("TimeoutStopSec=", "TimeoutStopSec"),
            ("TimeoutStopSec=5 parsecs", "TimeoutStopSec"),
            ("Description=", "Description"),
        ] {
            let error = text.parse::<UnitProperty>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(index in 0..KNOWN.len(), value in "\\PC{0,20}|[0-9.%KMGs ,-]{0,20}") {
            let _ = format!("{}={value}", KNOWN[index].0).parse::<UnitProperty>();
        }
    }
}

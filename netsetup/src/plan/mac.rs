//! MAC addresses.

use std::fmt;

use ipnet::Ipv6Net;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A MAC address; prints as `02:00:00:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The link-local IPv6 address that derives from it (RFC 4291, appendix A).
    pub(super) fn link_local(self) -> Ipv6Net {
        let [a, b, c, d, e, f] = self.0;
        let address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Net::new_assert(address.into(), 64)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes =
            text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<Vec<u8>>>();
        let mac = bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac);
        mac.ok_or_else(|| de::Error::custom(format!("{text:?} is not a MAC address")))
    }
}

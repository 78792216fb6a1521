//! rtnetlink: the requests a container needs, as `netlink-packet-route` messages, and the few questions asked.
//! Nothing outside this module names a type of that crate, which breaks its interface every month or two.

pub(crate) mod addr;
pub(crate) mod counters;
pub(crate) mod link;
#[expect(clippy::module_inception, reason = "rtnetlink's own word for it")]
pub(crate) mod route;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

/// Make it, and fail if it is there.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Make it, in the place of one that is there.
const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

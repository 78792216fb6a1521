//! A running container, changed while it runs: paused, resumed, given other limits.

pub(crate) mod freezer;
mod set;

pub use freezer::{is_paused, pause, resume, thaw};
pub use set::{Effect, SetRequest, set};

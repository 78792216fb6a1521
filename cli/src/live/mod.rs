//! A running container, changed while it runs: paused, resumed, given other limits.

pub(crate) mod freezer;

pub use freezer::{is_paused, pause, resume, thaw};

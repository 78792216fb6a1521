//! A running container, changed while it runs: paused, resumed, given other limits.

mod freezer;

pub use freezer::{is_paused, pause, resume, thaw};

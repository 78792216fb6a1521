//! The beginning and the end of a configured container, and its settings in between.

pub mod edit;

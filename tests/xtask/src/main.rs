//! `cargo xtask`: everything that builds, tests, shows or measures nixrun.
fn main() {}

//! The nixrun command.
fn main() {}

//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "x86_64-unknown-linux-musl";

/// `NIXRUN_BIN`, or the debug build for musl, which is brought up to date first.
///
/// # Panics
/// When it cannot be built.
pub fn nixrun_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("NIXRUN_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    cargo_build(&["--target", TARGET]).join(TARGET).join("debug/nixrun")
}

/// An example of the library `nixrun`, built for this machine, up to date.
///
/// # Panics
/// When it cannot be built.
pub fn example_binary(name: &str) -> PathBuf {
    cargo_build(&["--example", name]).join("debug/examples").join(name)
}

/// Has cargo build something of the package `nixrun`; the target directory.
fn cargo_build(what: &[&str]) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["build", "--quiet", "--package", "nixrun"])
        .args(what)
        .current_dir(&workspace)
        .output()
        .expect("cargo starts");
    assert!(done.status.success(), "cannot build nixrun: {}", String::from_utf8_lossy(&done.stderr));
    target
}

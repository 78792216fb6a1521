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
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["build", "--quiet", "--package", "nixrun", "--target", TARGET])
        .current_dir(&workspace)
        .output()
        .expect("cargo starts");
    assert!(done.status.success(), "cannot build nixrun: {}", String::from_utf8_lossy(&done.stderr));
    target.join(TARGET).join("debug/nixrun")
}

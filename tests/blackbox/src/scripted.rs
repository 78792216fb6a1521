//! Containers whose PID 1 is a script of the test's.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Host, probe_root};

/// Configures a container whose PID 1 is this script of bash, with `more` keys.
///
/// # Panics
/// When its files cannot be made, or `more` is no object.
pub fn script(host: &Host<'_>, name: &str, script: &str, more: Value) {
    let root = probe_root(host, name);
    let root = Path::new("/").join(root.strip_prefix(host.dir()).expect("a root of this host"));
    let mut document = json!({"root": root, "command": ["/probe/bash", "-c", script]});
    let Value::Object(more) = more else { panic!("keys") };
    document.as_object_mut().expect("an object").extend(more);
    host.write(&format!("etc/nixrun/{name}.json"), &document.to_string(), 0o644);
}

/// A PID 1 that ends when it is asked to.
pub const PATIENT: &str =
    "trap 'exit 0' TERM; trap 'exit 7' USR1; while :; do /probe/busybox sleep 0.02; done";

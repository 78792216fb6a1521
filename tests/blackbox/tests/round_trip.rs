//! The whole way of a container's data: made, updated, rolled back, written to a file, destroyed, and there again.
#![forbid(unsafe_code)]

use std::fs;

use blackbox::{Host, on_host, wait_for};
use fixture::Kind;
use serde_json::Value;

/// What the container's page says, nginx to php to PostgreSQL and back; each request is a row.
fn page(host: &Host<'_>, name: &str) -> (String, u64) {
    let address = host.ok(&["show-ip", name]);
    let text = wait_for("the page", || {
        let text = host.sh(&format!("curl -s --max-time 10 http://{}/ || true", address.trim()));
        text.contains("message").then_some(text)
    });
    let page: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let message = page["message"].as_str().unwrap_or_default().to_owned();
    (message, page["value"].as_u64().unwrap_or_else(|| panic!("no value: {text}")))
}

fn leader(host: &Host<'_>, name: &str) -> Value {
    let status: Value = serde_json::from_str(&host.ok(&["status", "--json", name])).unwrap();
    status["leader"].clone()
}

fn release(number: u32, value: u64) -> (String, u64) {
    (format!("web release {number}"), value)
}

#[test]
fn rows_survive_update_rollback_export_destroy_and_import() {
    on_host(|host| {
        let first = host.install(Kind::Web, "template");
        fs::remove_file(host.path("etc/nixos-containers/template.conf")).unwrap();
        let second = fixture::build(Kind::Web, 2).unwrap();
        let [first, second] = [&first, &second].map(|built| built.system.to_str().unwrap().to_owned());
        // What the first container of a host makes stays: directories of Nix's, the lock of all who make containers.
        host.ok(&["create", "first", "--system-path", &first]);
        host.ok(&["start", "first"]);
        host.ok(&["stop", "first"]);
        host.ok(&["destroy", "--yes", "first"]);
        for made in ["gcroots/per-user/root", "profiles/per-user/root", "temproots"] {
            fs::create_dir_all(host.path("nix/var/nix").join(made)).unwrap();
        }
        let before = host.snapshot();

        host.ok(&["create", "shop", "--system-path", &first]);
        host.ok(&["start", "shop"]);
        assert_eq!(page(host, "shop"), release(1, 1));
        assert_eq!(page(host, "shop"), release(1, 2));
        let pid1 = leader(host, "shop");

        host.ok(&["update", "shop", "--system-path", &second]);
        assert_eq!(page(host, "shop"), release(2, 3), "after the update");
        host.ok(&["rollback", "shop"]);
        assert_eq!(page(host, "shop"), release(1, 4), "after the rollback");
        assert_eq!(leader(host, "shop"), pid1, "neither takes a restart");
        host.ok(&["stop", "shop"]);

        let file = host.path("shop.tar.zst");
        let file = file.to_str().unwrap();
        host.ok(&["export", "shop", file]);
        host.ok(&["destroy", "--yes", "shop"]);
        assert!(!host.root_of("shop").exists(), "the root directory is left");
        host.fails(1, &["status", "shop"]);

        host.ok(&["import", file]);
        host.ok(&["start", "shop"]);
        assert_eq!(page(host, "shop"), release(1, 5), "after the import");
        host.ok(&["stop", "shop"]);
        host.ok(&["destroy", "--yes", "shop"]);
        fs::remove_file(file).unwrap();
        before.assert_same(&host.snapshot(), "after the last destroy");
    });
}

//! `nixrun inspect`: what it says of a container that runs, of one that does not, and of one that cannot.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;

use blackbox::{Host, on_host};
use fixture::Kind;
use serde_json::Value;

fn setting<'v>(inspection: &'v Value, key: &str) -> &'v Value {
    let all = inspection["configuration"].as_array().unwrap();
    all.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("no {key}: {all:#?}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn a_container_that_runs_is_shown_from_all_sides() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let json =
            r#"{"hostname": "www", "credentials": {"password": {"text": "s3cret"}}, "privateUsers": "pick"}"#;
        host.write("etc/nixrun/mini.json", json, 0o600);
        let before = host.json(&["inspect", "mini", "--json"]);
        assert_eq!((&before["state"], &before["live"]), (&"stopped".into(), &Value::Null));
        let mini = host.boot("mini");
        let all = host.json(&["inspect", "mini", "--json"]);
        assert_eq!((&all["state"], &all["plan_error"]), (&"running".into(), &Value::Null));

        let conf = host.path("etc/nixos-containers/mini.conf");
        let address = setting(&all, "localAddress");
        assert_eq!(address["file"], conf.to_str().unwrap());
        let line = usize::try_from(address["line"].as_u64().unwrap()).unwrap();
        let said = fs::read_to_string(&conf).unwrap().lines().nth(line - 1).unwrap().to_owned();
        assert_eq!(said.trim(), format!("LOCAL_ADDRESS={}", text(&address["value"])));
        assert_eq!(setting(&all, "hostname")["file"], host.path("etc/nixrun/mini.json").to_str().unwrap());

        let live = &all["live"];
        assert_eq!(
            (live["leader"].as_i64(), live["supervisor"].as_i64()),
            (Some(mini.leader().into()), Some(mini.supervisor().into()))
        );
        let inode = |of: &str| fs::metadata(format!("/proc/{of}/ns/net")).unwrap().ino();
        assert_eq!(live["namespaces"]["net"], inode(&mini.leader().to_string()));
        assert_ne!(live["namespaces"]["net"], inode("self"));
        let map = fs::read_to_string(format!("/proc/{}/uid_map", mini.leader())).unwrap();
        let map: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(
            (live["users"]["base"].to_string(), live["users"]["length"].to_string()),
            (map[1].into(), map[2].into())
        );

        // Both ends, against what the kernel has.
        let pair = &all["network"]["pairs"][0];
        let ip = |script: &str| -> Value { serde_json::from_str(&host.sh(script)).unwrap() };
        let outside = ip("ip -j addr show dev ve-mini");
        let inside = ip(&format!("nsenter -t {} -n ip -j addr show dev eth0", mini.leader()));
        for (end, found) in [(&pair["host"], &outside[0]), (&pair["container"], &inside[0])] {
            assert_eq!((&end["name"], &end["mac"]), (&found["ifname"], &found["address"]));
            let has: Vec<String> = found["addr_info"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| format!("{}/{}", text(&one["local"]), one["prefixlen"]))
                .collect();
            let said = end["addresses"].as_array().unwrap();
            assert!(
                !said.is_empty() && said.iter().all(|one| has.iter().any(|has| has == text(one))),
                "{said:?} {has:?}"
            );
        }
        assert_eq!(live["links"], serde_json::json!(["ve-mini"]));
        assert!(!all["network"]["forwards"].as_array().unwrap().is_empty());
        let system = text(&all["system"]["path"]);
        assert!(system.starts_with("/nix/store/") && system.contains("nixos-system-mini"), "{system}");
        assert_eq!(all["plan"]["container"]["name"], "mini");

        let words = host.ok(&["inspect", "mini"]);
        for part in ["running", "configuration", "network", "live", "next start", ":(secret)", system] {
            assert!(words.contains(part.trim_start_matches(':')), "{part}: {words}");
        }
        let everything = words + &all.to_string();
        assert!(!everything.contains("s3cret"), "a secret is shown");
        mini.stop();
    });
}

#[test]
fn what_cannot_start_says_why_and_an_interrupted_change_is_told() {
    on_host(|host: &Host<'_>| {
        host.install(Kind::Mini, "mini");
        host.set_conf("mini", &[("HOST_BRIDGE", Some("br9")), ("HOST_ADDRESS", None)]);
        host.write("var/lib/nixrun/changes/mini", "{}", 0o600);
        let all = host.json(&["inspect", "mini", "--json"]);
        let plan = host.fails(1, &["plan", "mini"]);
        assert!(text(&all["plan_error"]).contains("br9") && plan.contains("br9"), "{plan} {all}");
        assert!(host.path("var/lib/nixrun/changes/mini").exists(), "who only looks recovers nothing");
        assert_eq!((&all["plan"], &all["change"]["holder"]), (&Value::Null, &Value::Null));
        assert!(host.ok(&["inspect", "mini"]).contains("interrupted"));
        assert_eq!(setting(&all, "hostBridge")["value"], "br9");
        assert_eq!(all["snapshots"], serde_json::json!([]));
        host.write("var/lib/nixos-containers/.snapshots/mini/2/etc/machine-id", "", 0o644);
        let kept = host.json(&["inspect", "mini", "--json"])["snapshots"].clone();
        let path = host.path("var/lib/nixos-containers/.snapshots/mini/2");
        assert_eq!((&kept[0]["generation"], &kept[0]["path"]), (&2.into(), &path.to_str().unwrap().into()));
        assert!(host.ok(&["inspect", "mini"]).contains("of generation 2, kept 20"), "{kept}");
        host.write("etc/nixos-containers/mini.conf", "HOST_ADDRESS=nonsense\n", 0o644);
        let all = host.json(&["inspect", "mini", "--json"]);
        assert!(text(&all["plan_error"]).contains("nonsense"), "{all}");
        assert_eq!(setting(&all, "hostAddress")["value"], "nonsense");
        assert!(host.fails(1, &["inspect", "mimi"]).contains("did you mean \"mini\"?"));
    });
}

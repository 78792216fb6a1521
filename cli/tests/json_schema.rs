//! The published schema and the parser accept the same files.

#![recursion_limit = "512"]

use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use nixrun::json;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

fn validator() -> &'static Validator {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
        jsonschema::draft202012::new(&serde_json::to_value(json::schema()).unwrap()).unwrap()
    });
    &VALIDATOR
}

fn parses(value: &Value) -> Result<(), String> {
    let text = serde_json::to_vec(value).unwrap();
    json::parse(&text, Path::new("x.json")).map(|_| ()).map_err(|error| error.to_string())
}

/// A document with every key; each of its values, keys and list items is changed in turn.
fn full() -> Value {
    json!({
        "$schema": "x", "system": "/nix/store/x", "command": ["a", "b"], "boot": true, "environment": {"A": "b", "B": ""},
        "workingDirectory": "/", "user": "nobody", "asPid2": true, "hostname": "a.b",
        "machineId": "12345678-9abc-def0-0001-020304050607", "killSignal": "SIGRTMIN+3", "notifyReady": true,
        "personality": "compat", "console": "pipe", "autoStart": true, "requires": ["db", "a.b"],
        "restart": "on-failure", "startTimeout": 120, "root": "/srv/x", "image": false, "template": "/t", "readOnly": false,
        "volatile": "state", "ephemeral": true, "pivotRoot": {"new": "/a", "old": "/b"}, "privateUsers": "65536:1000",
        "privateUsersOwnership": "map",
        "bindMounts": {"/a": {"hostPath": "/b", "isReadOnly": false, "recursive": true, "ids": "owner"}, "/c": {}},
        "tmpfs": ["/a", "/b:size=1G"], "overlays": {"/o": {"lower": ["/l", "+/m"], "upper": ""}}, "inaccessible": ["/x"],
        "privateNetwork": true, "hostBridge": "br0", "zone": "back", "hostAddress": "10.0.0.1", "hostAddress6": "fc00::1",
        "localAddress": "10.0.0.2/24", "localAddress6": "fc00::2/64", "localMacAddress": "02:00:00:00:00:01",
        "linkName": "lan",
        "extraVeths": {"v1": {"linkName": "in", "hostBridge": "br1", "hostAddress": "10.1.0.1", "hostAddress6": "fc00:1::1",
                              "localAddress": "10.1.0.2", "localAddress6": "fc00:1::2"}},
        "interfaces": ["eth1", "eth2:lan"], "macvlans": ["eth3"], "ipvlans": ["eth4"], "networkNamespace": "/run/netns/x",
        "forwardPorts": [{"protocol": "udp", "hostAddress": "192.0.2.1", "hostPort": 53, "containerPort": 5353}],
        "forwardTo": "current", "nat": "wan0", "additionalCapabilities": ["CAP_NET_ADMIN"],
        "droppedCapabilities": ["CAP_SYS_CHROOT"], "ambientCapabilities": ["CAP_SYS_NICE"], "noNewPrivileges": true,
        "systemCallFilter": {"allow": ["@keyring"], "deny": ["kill"]}, "suppressSync": true,
        "allowedDevices": [{"node": "/dev/fuse", "modifier": "rwm"}, {"node": "char-pts"}], "enableTun": true,
        "nested": true, "limits": {"NOFILE": "1:2", "CORE": 0}, "oomScoreAdjust": -5, "cpuAffinity": [0, 3],
        "resources": {
            "memory": {"max": "2G", "high": 5, "swap": {"max": 0}}, "cpu": {"max": "150%", "weight": 100},
            "pids": {"max": "max"}, "cpuset": {"cpus": "0-3,7", "mems": "0"},
            "io": {"max": {"/dev/sda": {"readBytes": "5M", "writeBytes": 6, "readOperations": 7, "writeOperations": "max"}}}},
        "resolvConf": "copy-stub", "timezone": "symlink", "linkJournal": "try-guest",
        "credentials": {"a": {"file": "/f"}, "b": {"text": "x"}},
        "kernelView": {"writable": "network", "tmpfsTmp": false, "cgroupNamespace": true, "shareIpc": true,
                       "sharePid": false, "shareUts": false}
    })
}

#[test]
fn a_document_with_every_key_is_one_for_both() {
    let schema = serde_json::to_value(json::schema()).unwrap();
    for key in schema["properties"].as_object().unwrap().keys() {
        assert!(full().get(key).is_some(), "{key} is not in the document");
    }
    parses(&full()).unwrap();
    let problems: Vec<String> =
        validator().iter_errors(&full()).map(|e| format!("{} {e}", e.instance_path())).collect();
    assert_eq!(problems, [""; 0]);
}

/// What stands in place of a value, a key or an item.
fn strange() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(65536),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("/x"),
        json!("/a/../b"),
        json!("a\u{0}b"),
        json!("10.0.0.1"),
        json!("fc00::1"),
        json!("auto"),
        json!("0123456789abcdefghij"),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({"x": 1}),
    ]
}

/// Every place in the document.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", escaped(key)), all));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| places(value, &format!("{at}/{i}"), all));
        }
        _ => {}
    }
}

/// Values that a pattern lets through and the parser does not: a pattern cannot count, and need not know every signal,
/// capability or driver. Nothing may be the other way round.
const SCHEMA_IS_WIDER: &[&str] = &[
    "cannot be used: expected an IPv4 address",
    "cannot be used: expected an IPv6 address",
    "cannot be used: expected an address of the host",
    "cannot be used: expected a signal",
    "cannot be used: expected no, yes, pick",
    "cannot be used: expected the name of one capability",
    "cannot be used: unknown capability",
    "cannot be used: there is no capability",
    "CAP_",
    "cannot be used: expected an absolute path without .. in place of",
    "cannot be used: expected PATH or PATH:OPTIONS",
    "cannot be used: expected at most PATH:OPTIONS",
];

#[track_caller]
fn agree(validator: &Validator, value: &Value) {
    match (parses(value), validator.is_valid(value)) {
        (Ok(()), true) | (Err(_), false) => {}
        (Ok(()), false) => {
            let problems: Vec<String> =
                validator.iter_errors(value).map(|e| format!("{} {e}", e.instance_path())).collect();
            panic!("the parser takes what the schema refuses: {problems:?}")
        }
        (Err(sentence), true) => {
            let known = SCHEMA_IS_WIDER.iter().any(|words| sentence.contains(words));
            assert!(known, "the schema takes what the parser refuses: {sentence}");
        }
    }
}

#[test]
fn every_change_of_it_is_taken_or_refused_by_both() {
    let validator = validator();
    let mut all = Vec::new();
    places(&full(), "", &mut all);
    assert!(all.len() > 140, "{} places", all.len());
    for place in &all {
        for strange in strange() {
            let mut changed = full();
            *changed.pointer_mut(place).unwrap() = strange;
            agree(validator, &changed);
        }
        // An unknown key in every object.
        let mut changed = full();
        if let Some(Value::Object(map)) = changed.pointer_mut(place) {
            map.insert("unknownKey".to_owned(), json!(1));
            agree(validator, &changed);
            map_is_refused(&changed, place);
        }
        // Every key and item away.
        let (parent, key) = place.rsplit_once('/').unwrap_or_default();
        let mut changed = full();
        match changed.pointer_mut(parent) {
            Some(Value::Object(map)) => drop(map.remove(&key.replace("~1", "/"))),
            Some(Value::Array(list)) => drop(list.remove(key.parse().unwrap())),
            _ => continue,
        }
        agree(validator, &changed);
    }
}

/// Objects of the model; those whose keys are the user's refuse the key as a key, or its value.
fn map_is_refused(value: &Value, place: &str) {
    assert!(parses(value).is_err(), "an unknown key at {place:?} is not refused");
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn strange_values_at_two_places_are_taken_or_refused_by_both(
        first: Index, second: Index, one: Index, other: Index,
    ) {
        let validator = validator();
        let mut all = Vec::new();
        places(&full(), "", &mut all);
        let mut changed = full();
        for (place, value) in [(first, one), (second, other)] {
            if let Some(target) = changed.pointer_mut(place.get::<String>(&all)) {
                *target = value.get(&strange()).clone();
            }
        }
        agree(validator, &changed);
    }

    #[test]
    fn no_text_panics(text in "\\PC*|[\\[\\]{}\":,0-9a-z]*") {
        let _ = json::parse(text.as_bytes(), Path::new("x.json"));
    }
}

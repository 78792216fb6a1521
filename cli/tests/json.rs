//! The JSON configuration: what is read, and what is refused with which sentence.

use std::path::Path;

use nixrun::json::{self, Json};

const FILE: &str = "/etc/nixrun/web.json";

fn parse(text: &str) -> Result<Json, String> {
    json::parse(text.as_bytes(), Path::new(FILE)).map_err(|error| error.to_string())
}

#[track_caller]
fn refusal(text: &str) -> String {
    let sentence = parse(text).expect_err(text);
    assert!(sentence.starts_with(&format!("{FILE}:")), "{sentence}");
    assert!(!sentence.contains(" at line "), "the place is said twice: {sentence}");
    sentence
}

#[test]
fn nothing_is_set_by_an_empty_object_and_by_null() {
    assert_eq!(parse("{}").unwrap().document, json::Document::default());
    assert_eq!(parse(r#"{"root": null, "tmpfs": null}"#).unwrap().document, json::Document::default());
}

#[test]
fn a_sentence_has_the_place_the_path_and_advice() {
    for (text, sentence) in [
        (
            "{\n  \"ephemral\": true\n}",
            "/etc/nixrun/web.json:2:12: there is no key \"ephemral\" here; did you mean \"ephemeral\"?",
        ),
        (
            r#"{"resources": {"memory": {"maxx": 1}}}"#,
            "/etc/nixrun/web.json:1:32: resources.memory: there is no key \"maxx\" here; did you mean \"max\"?",
        ),
        (
            r#"{"forwardPorts": [{"hostPort": 80}, {"hostPort": 81, "address": "::"}]}"#,
            "/etc/nixrun/web.json:1:62: forwardPorts[1]: there is no key \"address\" here; expected one of protocol, \
             hostAddress, hostPort, containerPort",
        ),
        (
            r#"{"bindMounts": {"/srv/data": {"hostPath": "data"}}}"#,
            "/etc/nixrun/web.json:1:48: bindMounts[\"/srv/data\"].hostPath: \"data\" cannot be used: expected an \
             absolute path without ..",
        ),
        (
            r#"{"volatile": "stat"}"#,
            "/etc/nixrun/web.json:1:19: volatile: \"stat\" cannot be used: expected one of \"no\", \"yes\", \"state\", \
             \"overlay\"; did you mean \"state\"?",
        ),
        (
            r#"{"xyzzyx": 1}"#,
            "/etc/nixrun/web.json:1:9: there is no key \"xyzzyx\" here; `nixrun schema` prints those that exist",
        ),
        ("{\"ephemeral\": true,}", "/etc/nixrun/web.json:1:20: the file is not valid JSON: trailing comma"),
        ("", "/etc/nixrun/web.json:1:0: the file is not valid JSON: EOF while parsing a value"),
        ("{} {}", "/etc/nixrun/web.json:1:4: the file is not valid JSON: trailing characters"),
        (r#"{"root": "/a", "root": "/b"}"#, "/etc/nixrun/web.json:1:21: the key \"root\" is there twice"),
        (
            r#"{"environment": {"A": "1", "A": "2"}}"#,
            "/etc/nixrun/web.json:1:30: environment: the same key is there twice",
        ),
    ] {
        assert_eq!(refusal(text), sentence);
    }
}

/// A value that is refused, and what the sentence says then.
type Wrong = (&'static str, &'static str);

/// For each key: values that are fine, and values that are not.
const KEYS: &[(&str, &[&str], &[Wrong])] = &[
    ("$schema", &[r#""https://example.org/x""#], &[("1", "invalid type")]),
    (
        "system",
        &[r#""/nix/store/x""#],
        &[
            (r#""""#, "absolute path"),
            (r#""x""#, "absolute path"),
            (r#""/a/../b""#, "without .."),
            ("1", "invalid type"),
        ],
    ),
    (
        "command",
        &[r#"["a", ""]"#],
        &[
            ("[]", "at least one"),
            (r#""a""#, "invalid type"),
            (r#"["a\u0000"]"#, "NUL"),
            ("[1]", "invalid type"),
        ],
    ),
    ("boot", &["true", "false"], &[(r#""yes""#, "invalid type"), ("1", "invalid type")]),
    (
        "environment",
        &[r#"{"A": "", "B_1": "x"}"#],
        &[
            (r#"{"": "x"}"#, "letters"),
            (r#"{"1A": "x"}"#, "letters"),
            (r#"{"A=B": "x"}"#, "letters"),
            (r#"{"A": 1}"#, "invalid type"),
            (r#"{"A": "\u0000"}"#, "NUL"),
        ],
    ),
    ("workingDirectory", &[r#""/""#], &[(r#""""#, "absolute path")]),
    (
        "user",
        &[r#""nobody""#, r#""1000""#],
        &[(r#""""#, "user"), (r#""a b""#, "user"), (r#""-x""#, "user"), ("0", "invalid type")],
    ),
    ("asPid2", &["true"], &[("0", "invalid type")]),
    ("hostname", &[r#""a.b""#], &[(r#""""#, "hostname"), (r#""a_b""#, "hostname"), (r#""-""#, "hostname")]),
    (
        "machineId",
        &[r#""123456789abcdef00001020304050607""#],
        &[
            (r#""""#, "32 hex"),
            (r#""0""#, "32 hex"),
            (r#""00000000000000000000000000000000""#, "not all zero"),
        ],
    ),
    (
        "killSignal",
        &[r#""SIGRTMIN+3""#, r#""TERM""#, r#""9""#],
        &[(r#""""#, "signal"), (r#""SIGFOO""#, "signal"), ("9", "invalid type")],
    ),
    ("notifyReady", &["true"], &[(r#""true""#, "invalid type")]),
    ("personality", &[r#""native""#, r#""compat""#], &[(r#""""#, "one of"), (r#""x86""#, "one of")]),
    ("autoStart", &["true"], &[("1", "boolean")]),
    ("requires", &[r#"["db"]"#, "[]"], &[(r#"["-x"]"#, "a hostname")]),
    ("restart", &[r#""no""#, r#""always""#], &[(r#""On-failure""#, "one of")]),
    ("startTimeout", &["1"], &[("0", "from 1 to 86400")]),
    ("console", &[r#""pipe""#, r#""passive""#], &[(r#""Pipe""#, "one of")]),
    ("root", &[r#""/srv/x""#], &[(r#""srv""#, "absolute path")]),
    ("image", &["true"], &[(r#""x""#, "invalid type")]),
    ("template", &[r#""/srv/x""#], &[(r#""..""#, "absolute path")]),
    ("readOnly", &["false"], &[("null1", "not valid JSON")]),
    (
        "volatile",
        &[r#""no""#, r#""yes""#, r#""state""#, r#""overlay""#],
        &[("true", "invalid type"), (r#""""#, "one of")],
    ),
    ("ephemeral", &["true"], &[("[]", "invalid type")]),
    (
        "pivotRoot",
        &[r#"{"new": "/a"}"#, r#"{"new": "/a", "old": "/b"}"#],
        &[("{}", "\"new\" is missing"), (r#"{"new": "a"}"#, "absolute path")],
    ),
    (
        "privateUsers",
        &[r#""no""#, r#""pick""#, r#""yes""#, r#""identity""#, "65536", r#""65536:1000""#, "0"],
        &[
            (r#""""#, "BASE"),
            (r#""some""#, "BASE"),
            ("-1", "invalid type"),
            ("4294967295", "BASE"),
            (r#""1:0""#, "BASE"),
            ("true", "invalid type"),
            ("1.5", "invalid type"),
        ],
    ),
    (
        "privateUsersOwnership",
        &[r#""off""#, r#""map""#, r#""chown""#, r#""auto""#],
        &[(r#""maps""#, "did you mean \"map\"?")],
    ),
    (
        "bindMounts",
        &[
            "{}",
            r#"{"/a": {}}"#,
            r#"{"/a": {"hostPath": "+/b", "isReadOnly": false, "recursive": false, "ids": "owner"}}"#,
            r#"{"/a": {"hostPath": ""}}"#,
        ],
        &[
            (r#"{"a": {}}"#, "absolute path"),
            (r#"{"/a": {"hostPath": "+b"}}"#, "absolute path"),
            (r#"{"/a": {"ids": "x"}}"#, "one of"),
            (r#"{"/a": "/b"}"#, "invalid type"),
            (r#"{"/a": {"readOnly": true}}"#, "did you mean \"isReadOnly\"?"),
            ("[]", "invalid type"),
            (r#"{"/a": {}, "/a": {}}"#, "twice"),
        ],
    ),
    (
        "tmpfs",
        &["[]", r#"["/a", "/b:size=1G,mode=0700", "/c\\:d"]"#],
        &[
            (r#"[""]"#, "absolute path"),
            (r#"["a"]"#, "absolute path"),
            (r#"["/a:b", "b"]"#, "absolute path"),
            (r#""/a""#, "invalid type"),
        ],
    ),
    (
        "overlays",
        &[r#"{"/a": {"lower": ["/b"], "upper": ""}}"#],
        &[
            (r#"{"/a": {"lower": []}}"#, "at least one"),
            (r#"{"/a": {}}"#, "\"lower\" is missing"),
            (r#"{"/a": {"lower": ["b"]}}"#, "absolute path"),
        ],
    ),
    ("inaccessible", &[r#"["/a"]"#], &[(r#"["a"]"#, "absolute path")]),
    ("privateNetwork", &["true"], &[("1", "invalid type")]),
    (
        "hostBridge",
        &[r#""br0""#],
        &[
            (r#""""#, "link's name"),
            (r#""0123456789abcdef""#, "link's name"),
            (r#""a b""#, "link's name"),
            (r#""..""#, "link's name"),
        ],
    ),
    (
        "zone",
        &[r#""a""#, r#""back-end.1""#],
        &[(r#""""#, "1 to 12"), (r#""0123456789abc""#, "1 to 12"), (r#""-a""#, "1 to 12")],
    ),
    (
        "hostAddress",
        &[r#""10.0.0.1""#, r#""10.0.0.1/32""#],
        &[
            (r#""""#, "IPv4"),
            (r#""10.0.0.1/24""#, "without a prefix"),
            (r#""10.0.0.300""#, "IPv4"),
            (r#""fc00::1""#, "IPv4"),
            (r#""127.0.0.1""#, "IPv4"),
        ],
    ),
    (
        "hostAddress6",
        &[r#""fc00::1""#],
        &[(r#""10.0.0.1""#, "IPv6"), (r#""::1""#, "IPv6"), (r#""fc00::1/64""#, "without a prefix")],
    ),
    (
        "localAddress",
        &[r#""10.0.0.2""#, r#""10.0.0.2/24""#],
        &[(r#""10.0.0.2/33""#, "IPv4"), (r#""10.0.0.2/""#, "IPv4"), (r#""0.0.0.0""#, "IPv4")],
    ),
    (
        "localAddress6",
        &[r#""fc00::2""#, r#""fc00::2/64""#],
        &[(r#""fc00::2/129""#, "IPv6"), (r#""ff02::1""#, "IPv6")],
    ),
    (
        "localMacAddress",
        &[r#""02:00:00:00:00:01""#],
        &[
            (r#""""#, "six bytes"),
            (r#""01:00:00:00:00:01""#, "multicast"),
            (r#""02:00:00:00:00""#, "six bytes"),
        ],
    ),
    ("linkName", &[r#""lan""#], &[(r#""a/b""#, "link's name")]),
    (
        "extraVeths",
        &[r#"{"v1": {}, "v2": {"hostBridge": "br1", "localAddress": "10.0.0.2/24", "linkName": "e1"}}"#],
        &[
            (r#"{"0123456789abcdef": {}}"#, "link's name"),
            (r#"{"v": {"hostAddress": "x"}}"#, "IPv4"),
            (r#"{"v": {"forwardPorts": []}}"#, "there is no key"),
        ],
    ),
    (
        "interfaces",
        &[r#"["eth1", "eth2:lan"]"#],
        &[(r#"[""]"#, "link's name"), (r#"["a:b:c"]"#, "link's name"), (r#"["a:"]"#, "link's name")],
    ),
    ("macvlans", &[r#"["eth1"]"#], &[(r#"["a b"]"#, "link's name")]),
    ("ipvlans", &[r#"["eth1"]"#], &[("{}", "invalid type")]),
    ("networkNamespace", &[r#""/run/netns/x""#], &[(r#""x""#, "absolute path")]),
    (
        "forwardPorts",
        &[
            r#"[{"hostPort": 80}, {"protocol": "sctp", "hostAddress": "::1", "hostPort": 1, "containerPort": 65535}]"#,
        ],
        &[
            (r#"[{"hostPort": 0}]"#, "from 1 to 65535"),
            (r#"[{"hostPort": 1, "containerPort": 0}]"#, "from 1 to 65535"),
            (r#"[[]]"#, "expected an object"),
            ("[{}]", "\"hostPort\" is missing"),
            (r#"[{"hostPort": 65536}]"#, "invalid value"),
            (r#"[{"hostPort": "80"}]"#, "invalid type"),
            (r#"[{"hostPort": 80, "protocol": "TCP"}]"#, "did you mean \"tcp\"?"),
            (r#"[{"hostPort": 80, "hostAddress": "0.0.0.0"}]"#, "leave hostAddress out"),
            (r#"[{"hostPort": 80, "hostAddress": "x"}]"#, "address of the host"),
        ],
    ),
    ("forwardTo", &[r#""configured""#, r#""current""#], &[(r#""""#, "one of")]),
    ("nat", &[r#""auto""#, r#""no""#, r#""wan0""#], &[(r#""""#, "link's name"), (r#""a/b""#, "link's name")]),
    (
        "additionalCapabilities",
        &["[]", r#"["CAP_NET_ADMIN"]"#],
        &[(r#"["CAP_FOO"]"#, "CAP_FOO"), (r#"["a,b"]"#, "one capability"), (r#"[""]"#, "one capability")],
    ),
    ("droppedCapabilities", &[r#"["CAP_SYS_CHROOT"]"#], &[(r#""CAP_SYS_CHROOT""#, "invalid type")]),
    ("ambientCapabilities", &[r#"["CAP_SYS_NICE"]"#], &[("[1]", "invalid type")]),
    ("noNewPrivileges", &["true"], &[("0", "invalid type")]),
    (
        "systemCallFilter",
        &["{}", r#"{"allow": ["@keyring", "bpf"], "deny": ["kill"]}"#],
        &[
            (r#"{"allow": [""]}"#, "system call"),
            (r#"{"allow": ["~kill"]}"#, "system call"),
            (r#"["bpf"]"#, "invalid type"),
            (r#"{"allwo": []}"#, "did you mean \"allow\"?"),
        ],
    ),
    ("suppressSync", &["true"], &[("0", "invalid type")]),
    (
        "allowedDevices",
        &[
            r#"[{"node": "/dev/fuse"}, {"node": "char-pts", "modifier": "rwm"}, {"node": "block-*", "modifier": "r"}]"#,
        ],
        &[
            ("[{}]", "\"node\" is missing"),
            (r#"[{"node": ""}]"#, "expected a node"),
            (r#"[{"node": "/etc/x"}]"#, "expected a node"),
            (r#"[{"node": "char-"}]"#, "expected a node"),
            (r#"[{"node": "/dev/x", "modifier": ""}]"#, "combination"),
            (r#"[{"node": "/dev/x", "modifier": "rr"}]"#, "combination"),
            (r#"[{"node": "/dev/x", "modifier": "x"}]"#, "combination"),
        ],
    ),
    ("enableTun", &["true"], &[("0", "invalid type")]),
    ("nested", &["true"], &[("0", "invalid type")]),
    (
        "limits",
        &[r#"{"NOFILE": 1024, "NPROC": "1:2", "CORE": "infinity", "STACK": "0:infinity"}"#],
        &[
            (r#"{"NOFIL": 1}"#, "did you mean \"NOFILE\"?"),
            (r#"{"X1": 1}"#, "expected one of CPU, FSIZE"),
            (r#"{"NOFILE": "2:1"}"#, "not above"),
            (r#"{"NOFILE": ""}"#, "infinity"),
            (r#"{"NOFILE": -1}"#, "invalid type"),
        ],
    ),
    (
        "oomScoreAdjust",
        &["-1000", "1000"],
        &[("1001", "from -1000 to 1000"), (r#""1""#, "invalid type"), ("1.5", "invalid type")],
    ),
    (
        "cpuAffinity",
        &["[0, 3]"],
        &[
            ("[]", "at least one"),
            ("[8192]", "below 8192"),
            ("[-1]", "invalid type"),
            (r#""0-3""#, "invalid type"),
        ],
    ),
    (
        "resources",
        &[
            "{}",
            r#"{"memory": {"max": "2G", "high": 1048576, "swap": {"max": 0}}, "cpu": {"max": "150%", "weight": 100}, "pids": {"max": "max"}, "io": {"max": {"/dev/sda": {"readBytes": "10M", "writeOperations": 5}}}, "cpuset": {"cpus": "0-3,7", "mems": "0"}}"#,
            r#"{"cpu": {"max": "50000/100000"}}"#,
        ],
        &[
            (r#"{"cpu": {"weight": 0}}"#, "from 1 to 10000"),
            ("[]", "expected an object"),
            (r#"{"memory": {"max": "2X"}}"#, "expected a number of bytes"),
            (r#"{"memory": {"max": ""}}"#, "expected a number of bytes"),
            (r#"{"memory": {"max": "16E"}}"#, "expected a number of bytes"),
            (r#"{"memory": {"max": -1}}"#, "invalid type"),
            (r#"{"memory": {"max": 1.5}}"#, "invalid type"),
            (r#"{"cpu": {"max": "150"}}"#, "expected 1%"),
            (r#"{"cpu": {"max": "0%"}}"#, "expected 1%"),
            (r#"{"cpu": {"max": "1000/999"}}"#, "expected 1%"),
            (r#"{"cpu": {"max": 2}}"#, "150%"),
            (r#"{"pids": {"max": "many"}}"#, "expected a number"),
            (r#"{"io": {"max": {"sda": {}}}}"#, "absolute path"),
            (r#"{"cpuset": {"cpus": "3-0"}}"#, "0-3,7"),
            (r#"{"cpuset": {"cpus": ""}}"#, "0-3,7"),
            (r#"{"memory.max": 1}"#, "expected one of memory, cpu, pids, io, cpuset"),
        ],
    ),
    ("resolvConf", &[r#""auto""#, r#""bind-stub""#], &[(r#""copy""#, "one of")]),
    ("timezone", &[r#""symlink""#], &[(r#""link""#, "one of")]),
    ("linkJournal", &[r#""try-guest""#, r#""no""#], &[(r#""try""#, "one of")]),
    (
        "credentials",
        &[r#"{"a": {"file": "/run/secrets/a"}, "b": {"text": "x"}}"#],
        &[
            (r#"{"": {"text": "x"}}"#, "file name"),
            (r#"{"a/b": {"text": "x"}}"#, "file name"),
            (r#"{"..": {"text": "x"}}"#, "file name"),
            (r#"{"a": "x"}"#, "invalid type"),
            (r#"{"a": {"file": "x"}}"#, "absolute path"),
        ],
    ),
    (
        "kernelView",
        &[
            "{}",
            r#"{"writable": "network", "tmpfsTmp": false, "cgroupNamespace": false, "shareIpc": true, "sharePid": true, "shareUts": true}"#,
        ],
        &[(r#"{"writable": true}"#, "invalid type"), (r#"{"share": true}"#, "there is no key")],
    ),
];

#[test]
fn every_key_takes_what_is_right_and_refuses_the_rest_by_name() {
    let schema = serde_json::to_value(json::schema()).unwrap();
    let known: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    for key in &known {
        assert!(KEYS.iter().any(|(tested, ..)| tested == key), "{key} is not in the table");
    }
    for (key, right, wrong) in KEYS {
        assert!(known.contains(key), "{key} is not in the schema");
        assert!(!right.is_empty() && !wrong.is_empty(), "{key}");
        for value in *right {
            let text = format!("{{\"{key}\": {value}}}");
            let read = parse(&text).unwrap_or_else(|sentence| panic!("{text}: {sentence}"));
            assert_ne!(read.document, json::Document::default(), "{text} sets nothing");
        }
        for (value, problem) in *wrong {
            let text = format!("{{\"{key}\": {value}}}");
            let sentence = refusal(&text);
            assert!(sentence.contains(problem), "{text}: {sentence}");
            assert!(
                sentence.contains(&format!(": {key}"))
                    || sentence.contains("not valid JSON")
                    || *key == "$schema",
                "{text}: {sentence}"
            );
        }
    }
}

#[test]
fn values_that_are_too_long_are_refused_and_cut_in_the_sentence() {
    let long = "x".repeat(200_000);
    for text in [
        format!(r#"{{"environment": {{"A": "{long}"}}}}"#),
        format!(r#"{{"command": ["{long}"]}}"#),
        format!(r#"{{"hostname": "{long}"}}"#),
        format!(r#"{{"credentials": {{"{long}": {{"text": "x"}}}}}}"#),
        format!(r#"{{"user": "{long}"}}"#),
        format!(r#"{{"machineId": "{long}"}}"#),
        format!(r#"{{"hostBridge": "{long}"}}"#),
        format!(r#"{{"root": "/{long}"}}"#),
        format!(r#"{{"allowedDevices": [{{"node": "char-{long}"}}]}}"#),
        format!(r#"{{"systemCallFilter": {{"deny": ["{long}"]}}}}"#),
        format!(r#"{{"resources": {{"cpuset": {{"cpus": "{}0"}}}}}}"#, "0,".repeat(5000)),
    ] {
        let sentence = refusal(&text);
        assert!(sentence.len() < 400, "{} bytes: {}", sentence.len(), &sentence[..200]);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refusal(&deep).contains("invalid type"));
    assert!(refusal(&format!(r#"{{"tmpfs": {deep}}}"#)).len() < 400);
}

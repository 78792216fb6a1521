//! The NixOS module, evaluated by Nix against the stand-in of nixpkgs in tests/nixos: units, files and warnings compared with
//! what is kept in tests/nixos/golden, and the files fed to the built nixrun. `NIXRUN_BLESS=1` keeps what came out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use netsetup::NetworkConfig;
use nixrun::nixos_boot;
use nixrun::settings::Settings;
use runtime::{ContainerConfig, HostPaths, Payload};
use serde::Deserialize;
use serde_json::{Value, json};

/// What Nix answers for a case.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Evaluated {
    units: BTreeMap<String, String>,
    etc: BTreeMap<String, String>,
    networks: Value,
    unmanaged: Vec<String>,
    forward_rules: String,
    packages: Vec<String>,
    warnings: Vec<String>,
    failed: Vec<String>,
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/nixos")
}

/// Evaluates, without a store and without the machine's settings.
fn nix(file: &Path, arguments: &[&str]) -> Result<Value, String> {
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json"])
        .arg(file)
        .args(arguments)
        // A file that is a function is only called when there is an argument, whether it wants that or not.
        .args(["--argstr", "unused", ""])
        .args(lib_argument())
        .envs([("NIX_CONF_DIR", "/nonexistent"), ("NIX_REMOTE", "dummy://"), ("HOME", "/nonexistent")])
        .env_remove("NIX_PATH")
        .output()
        .expect("nix-instantiate is not installed: apt-get install nix-bin");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(serde_json::from_slice(&output.stdout).unwrap()) } else { Err(words) }
}

/// The lib of a real nixpkgs in place of the stand-in's, where NIXRUN_NIXPKGS_LIB names one.
fn lib_argument() -> Vec<String> {
    match std::env::var("NIXRUN_NIXPKGS_LIB") {
        Ok(path) if !path.is_empty() => vec!["--arg".into(), "lib".into(), format!("import {path}")],
        _ => Vec::new(),
    }
}

fn cases() -> Vec<String> {
    serde_json::from_value(nix(&here().join("eval.nix"), &[]).unwrap()).unwrap()
}

fn evaluate(case: &str) -> Evaluated {
    let value = nix(&here().join("eval.nix"), &["--argstr", "case", case]);
    serde_json::from_value(value.unwrap_or_else(|words| panic!("{case}: {words}"))).unwrap()
}

/// Compares with what is kept, or keeps it.
#[track_caller]
fn golden(name: &str, text: &str) {
    let file = here().join("golden").join(name);
    if std::env::var_os("NIXRUN_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        return;
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    if kept != text {
        let (line, (old, new)) = kept
            .lines()
            .zip(text.lines())
            .enumerate()
            .find(|(_, (old, new))| old != new)
            .unwrap_or((kept.lines().count().min(text.lines().count()), ("(end)", "(or more)")));
        panic!(
            "{} differs from line {} on:\n  kept: {old}\n  now:  {new}\nNIXRUN_BLESS=1 keeps what is now",
            file.display(),
            line + 1
        );
    }
}

#[test]
fn units_files_and_warnings_are_as_kept() {
    for case in cases() {
        let found = evaluate(&case);
        let mut text = String::new();
        let mut section =
            |title: &str, body: &str| write!(text, "#### {title}\n{}\n\n", body.trim_end()).unwrap();
        for (name, unit) in &found.units {
            section(&format!("{name}.service"), unit);
        }
        for (name, content) in &found.etc {
            let json = serde_json::from_str::<Value>(content).ok();
            let pretty = json.map(|json| serde_json::to_string_pretty(&json).unwrap());
            section(&format!("/etc/{name}"), pretty.as_deref().unwrap_or(content));
        }
        section("systemd.network.networks", &serde_json::to_string_pretty(&found.networks).unwrap());
        section("networking.networkmanager.unmanaged", &found.unmanaged.join("\n"));
        section("networking.firewall.extraForwardRules", &found.forward_rules);
        section("environment.systemPackages", &found.packages.join("\n"));
        section("warnings", &found.warnings.join("\n"));
        section("failed assertions", &found.failed.join("\n"));
        golden(&format!("{case}.txt"), &text);
    }
}

/// A host with the files that the module made, and everything that they name.
struct Host {
    dir: tempfile::TempDir,
    paths: HostPaths,
}

impl Host {
    fn new(etc: &BTreeMap<String, String>) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let host = Host { paths: HostPaths::below(dir.path()), dir };
        for directory in
            ["nix/var/nix/db", "nix/var/nix/daemon-socket", "run/agenix", "etc", "home/alice", "srv"]
        {
            fs::create_dir_all(host.dir.path().join(directory)).unwrap();
        }
        host.file("run/agenix/db-password", "secret");
        host.file("etc/resolv.conf", "nameserver 192.0.2.1\n");
        host.file("etc/os-release", "ID=nixos\n");
        for (name, content) in etc {
            host.file(&format!("etc/{name}"), content);
            for line in content.lines() {
                let Some(system) = line.trim().strip_prefix("SYSTEM_PATH=") else { continue };
                host.file(&format!("{}/init", &system[1..]), "#!/bin/sh\n");
            }
        }
        host
    }

    fn file(&self, path: &str, content: &str) {
        let file = self.dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn without_root(&self, text: &str) -> String {
        text.replace(self.dir.path().to_str().unwrap(), "")
    }
}

fn names(etc: &BTreeMap<String, String>) -> Vec<&str> {
    etc.keys().filter_map(|file| file.strip_prefix("nixrun/")?.strip_suffix(".json")).collect()
}

/// Cases whose containers nixrun starts.
fn startable() -> impl Iterator<Item = (String, Evaluated)> {
    let skipped = ["disabled", "flake", "wrong"];
    cases().into_iter().filter(move |case| !skipped.contains(&case.as_str())).map(|case| {
        let found = evaluate(&case);
        (case, found)
    })
}

/// What is not as it is in `default`: a key that is added to the types changes nothing here.
fn to_json<T: serde::Serialize>(value: &T, default: &T) -> Value {
    let (value, default) = (serde_json::to_value(value).unwrap(), serde_json::to_value(default).unwrap());
    beyond(words(value), &words(default))
}

fn beyond(value: Value, default: &Value) -> Value {
    let (Value::Object(value), Value::Object(default)) = (value.clone(), default) else { return value };
    let other = value.into_iter().filter(|(key, value)| default.get(key) != Some(value));
    other
        .map(|(key, value)| (key.clone(), beyond(value, default.get(&key).unwrap_or(&Value::Null))))
        .collect()
}

/// With bytes of paths and words as text.
fn words(value: Value) -> Value {
    match value {
        Value::Object(mut map) => match map.remove("Unix") {
            Some(Value::Array(bytes)) => {
                let bytes: Vec<u8> = serde_json::from_value(Value::Array(bytes)).unwrap();
                Value::String(String::from_utf8(bytes).unwrap())
            }
            _ => map.into_iter().map(|(key, value)| (key, words(value))).collect(),
        },
        Value::Array(list) => list.into_iter().map(words).collect(),
        other => other,
    }
}

#[test]
fn both_files_together_ask_for_what_is_kept() {
    let mut seen = 0;
    for (case, found) in startable() {
        let host = Host::new(&found.etc);
        for name in names(&found.etc) {
            let settings =
                Settings::read(name, &host.paths).unwrap_or_else(|error| panic!("{case}: {error}"));
            let boot = nixos_boot::to_configs(name, &settings, &host.paths)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            let container = to_json(&boot.container, &ContainerConfig::new("", "", Payload::new(Vec::new())));
            let network = boot.network.map(|network| to_json(&network, &NetworkConfig::new("")));
            let text =
                serde_json::to_string_pretty(&json!({"container": container, "network": network})).unwrap();
            golden(&format!("{case}-{name}.request.json"), &(host.without_root(&text) + "\n"));
            seen += 1;
        }
    }
    assert!(seen >= 7, "{seen} containers were looked at");
}

#[test]
fn the_built_nixrun_plans_what_is_kept() {
    for case in ["plain", "network", "network-new-system", "old-directories", "open-forward", "firewall"] {
        let found = evaluate(case);
        let host = Host::new(&found.etc);
        let output = Command::new(env!("CARGO_BIN_EXE_nixrun"))
            .arg("--host-root")
            .arg(host.dir.path())
            .args(["plan", "web", "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = serde_json::to_string_pretty(&stable(&plan)).unwrap();
        golden(&format!("{case}.plan.json"), &(host.without_root(&text) + "\n"));
    }
}

/// What does not depend on the machine that the test runs on: its limits, capabilities, control groups, machine id.
fn stable(plan: &Value) -> Value {
    let container = &plan["container"];
    let targets: Vec<&Value> = container["mounts"].as_array().unwrap().iter().map(|m| &m["target"]).collect();
    let veth = &plan["network"]["veth"];
    let end = |end: &str, key: &str| veth[end][key].clone();
    json!({
        "rootfs": container["rootfs"],
        "preparation": container["preparation"],
        "namespaces": container["namespaces"],
        "store and after": targets.iter().filter(|t| t.as_str().is_some_and(|t| t.starts_with("/nix"))).collect::<Vec<_>>(),
        "stop signal": container["stop_signal"],
        "host end": [end("host", "name"), end("host", "addresses"), end("host", "routes")],
        "container end": [end("container", "name"), end("container", "addresses"), end("container", "gateways")],
        "nat": plan["network"]["nat"],
    })
}

#[test]
fn the_check_of_the_build_takes_every_file_and_refuses_a_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let check = |content: &str| {
        let file = dir.path().join("web.json");
        fs::write(&file, content).unwrap();
        Command::new(env!("CARGO_BIN_EXE_nixrun")).args(["schema", "--check"]).arg(&file).output().unwrap()
    };
    for case in cases() {
        for (name, content) in evaluate(&case).etc.iter().filter(|(name, _)| name.starts_with("nixrun/")) {
            let output = check(content);
            assert!(output.status.success(), "{case} {name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let output = check(r#"{"memory": {"max": "2G"}}"#);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("there is no key \"memory\" here"), "{words}");
}

#[test]
fn a_new_system_alone_reloads_the_unit() {
    let triggers = |case: &str| {
        let unit = evaluate(case).units.remove("container@web").unwrap();
        let of = |key: &str| unit.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        (of("X-Restart-Triggers="), of("X-Reload-Triggers="), unit)
    };
    let (restart, reload, unit) = triggers("network");
    let (new_restart, new_reload, new_unit) = triggers("network-new-system");
    assert_eq!(restart, new_restart);
    assert_ne!(reload, new_reload);
    let rest =
        |unit: &str| unit.lines().filter(|l| !l.starts_with("X-Reload")).collect::<Vec<_>>().join("\n");
    assert_eq!(rest(&unit), rest(&new_unit), "nothing else of the unit changes");
    assert_ne!(triggers("network-new-limit").0, restart, "what is on the host's side restarts it");
}

#[test]
fn the_stand_in_refuses_what_nixpkgs_refuses() {
    let evaluated = |module: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.nix");
        let text = format!(
            "{{ lib ? import {0}/standin/lib.nix }}: let inherit (lib.evalModules {{ specialArgs.pkgs = import {0}/standin/pkgs.nix; \
             modules = [ {0}/standin/nixos.nix {0}/../../nixos {module} ]; }}) config; \
             in [ config.test.units config.virtualisation.nixrun.documents ]",
            fs::canonicalize(here()).unwrap().display()
        );
        fs::write(&file, text).unwrap();
        nix(&file, &[])
    };
    let web = "containers.web.path = \"/nix/store/x\";";
    let enable = "virtualisation.nixrun.enable = true;";
    evaluated(&format!("{{ {web} virtualisation.nixrun.enable = true; }}")).unwrap();
    for (module, problem) in [
        // Without mkForce the module's own keys would collide with nixpkgs': this is what the goldens rest on.
        (
            format!(
                "{{ {web} {enable} systemd.services.\"container@web\".serviceConfig.Type = \"simple\"; }}"
            ),
            "serviceConfig.Type' has conflicting definition",
        ),
        (
            format!("{{ {web} {enable} virtualisation.nixrun.enabel = true; }}"),
            "nixrun.enabel' does not exist",
        ),
        (
            format!("{{ {web} {enable} containers.web.nixrun.nested = 1; }}"),
            "nixrun.nested' is not of type `bool'",
        ),
        (
            format!("{{ {web} {enable} containers.web.nixrun.nestde = true; }}"),
            "nixrun.nestde' does not exist",
        ),
        (
            format!("{{ {web} {enable} containers.web.nixrun.bindMountIds.\"/x\" = \"me\"; }}"),
            "is not of type `enum'",
        ),
    ] {
        let words = evaluated(&module).unwrap_err();
        assert!(words.contains(problem), "{module}: {words}");
    }
}

#[test]
fn the_flake_offers_package_module_overlay_and_checks() {
    let found = nix(&here().join("flake.nix"), &[]).unwrap();
    golden("flake.json", &(serde_json::to_string_pretty(&found).unwrap() + "\n"));
}

//! Systems that Nix itself builds, in a store of the test's own, of a NixOS that consists of a few attributes.
#![forbid(unsafe_code)]

use std::fs;
use std::process::Output;

use blackbox::{Host, on_host};

/// For a store below the host's root Nix builds in a sandbox: with the machine's shell, and nothing from anywhere.
const NIX_CONFIG: &str = "build-users-group =\nsubstitute = false\nsandbox-fallback = false\n\
     sandbox-paths = /bin=/usr/bin /usr /lib=/usr/lib /lib64=/usr/lib64\n";

/// What nixpkgs' `nixos` is to whoever builds a system of it.
const NIXOS: &str = r#"
{ configuration ? import <nixos-config> }:
let
  lib = { mkDefault = x: x; };
  one = f: let m = f { inherit lib; config = { }; pkgs = { }; }; in
    builtins.foldl' (all: path: all // one (wrap (import path))) { } (m.imports or [ ]) // m;
  wrap = m: if builtins.isFunction m then m else _: m;
  config = one configuration;
in {
  system = derivation {
    name = "nixos-system-${config.networking.hostName}-${config.version}";
    system = builtins.currentSystem;
    builder = "/bin/bash";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" ''
      echo building version ${config.version} >&2
      ${config.script or ""}
      mkdir -p $out/bin
      printf '#!/bin/sh\n' > $out/init
      chmod +x $out/init
      echo ${config.version} > $out/nixos-version
      :
    '' ];
  };
}
"#;

fn with_nix(test: impl FnOnce(&Host<'_>) + Send) {
    on_host(|host| {
        for directory in ["nix/store", "var/lib/nixos-containers/web", "etc/nixos-containers"] {
            fs::create_dir_all(host.path(directory)).unwrap();
        }
        host.write("etc/nixos-containers/web.conf", "PRIVATE_NETWORK=1\n", 0o644);
        host.write("fake/nixos/default.nix", NIXOS, 0o644);
        test(host);
    });
}

fn nixrun(host: &Host<'_>, args: &[&str]) -> Output {
    let mut command = host.nixrun(args);
    command.env("NIX_CONFIG", NIX_CONFIG).env("NIX_CONF_DIR", "/nonexistent").env("HOME", host.dir());
    command.output().unwrap()
}

#[track_caller]
fn update(host: &Host<'_>, args: &[&str]) -> (bool, String, String) {
    let fake = host.path("fake/nixos");
    let output = nixrun(host, &[&["update", "web", "--nixos-path", fake.to_str().unwrap()], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn systems(host: &Host<'_>) -> Vec<String> {
    let output = nixrun(host, &["generations", "--json", "web"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_configuration_is_built_kept_and_built_again_after_an_edit() {
    with_nix(|host| {
        let text = r#"version = "1"; system.stateVersion = "24.11";"#;
        let (ok, out, err) = update(host, &["-v", "--config", text]);
        assert!(ok && out.contains("generation 1") && err.contains("building version 1"), "{out}{err}");
        assert_eq!(systems(host), ["nixos-system-web-1"]);
        let kept = host.path("var/lib/nixos-containers/web/etc/nixos/configuration.nix");
        let written = fs::read_to_string(&kept).unwrap();
        for part in ["boot.isContainer = true;", "networking.hostName = mkDefault \"web\";", text] {
            assert!(written.contains(part), "{written}");
        }
        // Edited in its place, as nixos-container's users do.
        fs::write(&kept, written.replace("version = \"1\"", "version = \"2\"").replace("24.11", "25.05"))
            .unwrap();
        let (ok, out, err) = update(host, &[]);
        assert!(ok && out.contains("generation 2"), "{out}{err}");
        assert!(err.contains("warning: system.stateVersion changes from 24.11 to 25.05"), "{err}");
        assert_eq!(systems(host), ["nixos-system-web-1", "nixos-system-web-2"]);
        let (_, _, err) = update(host, &[]);
        assert!(!err.contains("stateVersion"), "{err}");

        host.write("a place/web.nix", r#"{ version = "3"; }"#, 0o644);
        let file = host.path("a place/web.nix");
        let (ok, out, err) = update(host, &["--config-file", file.to_str().unwrap()]);
        assert!(ok, "{out}{err}");
        assert_eq!(systems(host).last().unwrap(), "nixos-system-web-3");
        assert!(fs::read_to_string(&kept).unwrap().contains("a place/web.nix"));
        for left in ["nix/var/nix/gcroots/nixrun", "run/nixrun/.builds"] {
            assert!(!host.path(left).exists(), "{left} was left");
        }
    });
}

#[test]
fn a_build_that_fails_changes_nothing() {
    with_nix(|host| {
        assert!(update(host, &["--config", r#"version = "1";"#]).0);
        // What builders say is Nix's to keep.
        let snapshot = || {
            host.sh(&format!("rm -rf {}", host.path("nix/var/log").display()));
            host.snapshot()
        };
        let before = snapshot();
        let kept = host.path("var/lib/nixos-containers/web/etc/nixos/configuration.nix");
        let written = fs::read_to_string(&kept).unwrap();
        for (config, why) in [
            (r#"version = "2"; script = "exit 3";"#, "failed with exit code 3"),
            ("version = ;", "syntax error"),
            ("", "version"),
        ] {
            let (ok, _, err) = update(host, &["--config", config]);
            let lines: Vec<_> = err.lines().collect();
            assert!(!ok && lines.len() == 1, "{err}");
            assert!(
                lines[0].starts_with("nixrun: cannot build a system for container web: nix-build failed"),
                "{err}"
            );
            assert!(lines[0].contains("exit status: ") && !lines[0].ends_with("say why"), "{why}: {err}");
        }
        assert_eq!(fs::read_to_string(&kept).unwrap(), written);
        before.assert_same(&snapshot(), "after builds that failed");
    });
}

#[test]
fn a_flake_is_built() {
    with_nix(|host| {
        let flake = |version: &str| {
            format!(
            "{{ outputs = {{ self }}: {{ nixosConfigurations.web.config.system.build.toplevel =
               (import ./nixos {{ configuration = _: {{ version = \"{version}\"; networking.hostName = \"flake\"; }}; }}).system; }}; }}"
        )
        };
        host.write("flake/flake.nix", &flake("1"), 0o644);
        host.write(
            "flake/nixos/default.nix",
            &NIXOS.replace("builtins.currentSystem", "\"x86_64-linux\""),
            0o644,
        );
        let uri = format!("path:{}#web", host.path("flake").display());
        let (ok, out, err) = update(host, &["--flake", &uri]);
        assert!(ok, "{out}{err}");
        // What the conf names is what an update builds.
        host.write("etc/nixos-containers/web.conf", &format!("PRIVATE_NETWORK=1\nFLAKE={uri}\n"), 0o644);
        host.write("flake/flake.nix", &flake("2"), 0o644);
        let (ok, out, err) = update(host, &[]);
        assert!(ok, "{out}{err}");
        assert_eq!(systems(host), ["nixos-system-flake-1", "nixos-system-flake-2"]);
    });
}

#[test]
fn without_nix_there_is_a_sentence() {
    with_nix(|host| {
        let mut command = host.command("env");
        command.args(["PATH=/nonexistent"]).arg(blackbox::nixrun_binary());
        command.arg("--host-root").arg(host.dir()).args(["update", "web", "--config", ""]);
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(err.contains("there is no nix-build in PATH; install Nix"), "{err}");
    });
}

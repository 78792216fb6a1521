//! What a system is made of.

use std::path::{Path, PathBuf};

use crate::args::SourceArgs;
use crate::settings::Settings;

/// Where a container's system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The attributes of a NixOS module, as text.
    Config(String),
    /// A file with a NixOS module.
    ConfigFile(PathBuf),
    /// A flake, `URI` or `URI#NAME` for `nixosConfigurations.NAME`; `container` when none is named.
    Flake(String),
    /// A system that is there: a path of the store, or a link to one.
    SystemPath(PathBuf),
    /// The configuration that the container's root has.
    Kept,
}

impl Source {
    /// What the options name, if anything.
    #[must_use]
    pub fn of(args: &SourceArgs) -> Option<Source> {
        let config = || args.config.clone().map(Source::Config);
        let file = || args.config_file.clone().map(Source::ConfigFile);
        let flake = || args.flake.clone().map(Source::Flake);
        let system = || args.system_path.clone().map(Source::SystemPath);
        config().or_else(file).or_else(flake).or_else(system)
    }

    /// What a container was made from, as its files tell.
    #[must_use]
    pub fn kept(settings: &Settings) -> Source {
        match settings.conf.as_ref().and_then(|conf| conf.flake.clone()) {
            Some(flake) => Source::Flake(flake),
            None => Source::Kept,
        }
    }
}

/// The text of a module for container `name` that has these attributes besides what every container has.
pub(super) fn module(name: &str, attributes: &str) -> String {
    format!(
        "# Written by nixrun; replaced by `nixrun update {name} --config` and its kind.\n\
         {{ config, lib, pkgs, ... }}:\n\nwith lib;\n\n{{\n  boot.isContainer = true;\n  \
         networking.hostName = mkDefault \"{name}\";\n  networking.useDHCP = false;\n\n  {attributes}\n}}\n"
    )
}

/// Attributes that import the module in a file.
pub(super) fn import(file: &Path) -> Option<String> {
    Some(format!("imports = [ (/. + {}) ];", quoted(file.to_str()?)))
}

/// A string of the Nix language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${"))
}

/// The attribute of a flake that is the system: `URI#ATTRIBUTE`.
pub(super) fn installable(flake: &str) -> String {
    let (uri, name) = match flake.rsplit_once('#') {
        Some((uri, name)) if !name.is_empty() => (uri, name),
        Some((uri, _)) => (uri, "container"),
        None => (flake, "container"),
    };
    format!("{uri}#nixosConfigurations.{}.config.system.build.toplevel", quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flake_names_its_system() {
        let rest = "config.system.build.toplevel";
        for (flake, expected) in [
            ("/etc/web", format!("/etc/web#nixosConfigurations.\"container\".{rest}")),
            ("github:a/b#web", format!("github:a/b#nixosConfigurations.\"web\".{rest}")),
            ("path:/x#", format!("path:/x#nixosConfigurations.\"container\".{rest}")),
        ] {
            assert_eq!(installable(flake), expected);
        }
    }

    #[test]
    fn a_file_of_any_name_is_imported_and_not_evaluated() {
        let import = import(Path::new("/etc/a \"b\" ${c}\\.nix")).unwrap();
        assert_eq!(import, r#"imports = [ (/. + "/etc/a \"b\" \${c}\\.nix") ];"#);
    }
}

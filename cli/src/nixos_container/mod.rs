//! The command line of nixpkgs' `nixos-container`, for links of that name: the same actions, options and messages, done
//! by nixrun's own commands.

mod options;

use std::ffi::OsString;

use options::Words;

/// The program that is stood in for.
pub const PROGRAM: &str = "nixos-container";

/// What `--help` prints.
pub const HELP: &str = "\
Usage: nixos-container list
       nixos-container create <container-name>
         [--nixos-path <path>]
         [--system-path <path>]
         [--config <string>]
         [--config-file <path>]
         [--flake <flakeref>]
         [--ensure-unique-name]
         [--auto-start]
         [--bridge <iface>]
         [--port <port>]
         [--host-address <string>]
         [--local-address <string>]
       nixos-container destroy <container-name>
       nixos-container restart <container-name>
       nixos-container start <container-name>
       nixos-container stop <container-name>
       nixos-container terminate <container-name>
       nixos-container status <container-name>
       nixos-container update <container-name>
         [--config <string>]
         [--config-file <path>]
         [--flake <flakeref>]
         [--nixos-path <path>]
       nixos-container login <container-name>
       nixos-container root-login <container-name>
       nixos-container run <container-name> -- args...
       nixos-container show-ip <container-name>
       nixos-container show-host-key <container-name>
";

/// Options that each of the two actions hands on to nixrun's command of that name.
const CREATE: &[&str] = &[
    "nixos-path",
    "system-path",
    "config",
    "config-file",
    "flake",
    "bridge",
    "port",
    "host-address",
    "local-address",
];
const UPDATE: &[&str] = &["nixos-path", "config", "config-file", "flake"];
/// Options that Nix would be given.
const FOR_NIX: &[&str] = &[
    "log-format",
    "option",
    "impure",
    "update-input",
    "override-input",
    "commit-lock-file",
    "no-registries",
    "no-update-lock-file",
    "no-write-lock-file",
    "no-allow-dirty",
    "recreate-lock-file",
];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The help.
    Help,
    /// The names of all containers.
    List,
    /// A container of this name.
    Create {
        /// Its name.
        name: String,
        /// nixrun's command line.
        words: Vec<OsString>,
    },
    /// Something of a container that exists.
    Of {
        /// Its name.
        name: String,
        /// What.
        action: Action,
    },
}

/// What is asked of a container that exists.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes.
    Destroy,
    /// Whether it runs.
    Status,
    /// Its address.
    ShowIp,
    /// The key of its SSH server.
    ShowHostKey,
    /// What nixrun's command line says.
    Command(Vec<OsString>),
}

/// Reads the words behind the program's name.
///
/// # Errors
/// A sentence, and the exit code that goes with it.
pub fn parse(words: &[OsString]) -> Result<Asked, (String, u8)> {
    let words = options::read(words).map_err(|sentence| (sentence, 1))?;
    if words.has("help") {
        return Ok(Asked::Help);
    }
    let failed = |sentence: &str| Err((sentence.to_owned(), FAILED));
    if words.has("host-address") != words.has("local-address") {
        return failed("With --host-address set, --local-address is required as well!");
    }
    let text = |at: usize| words.rest.get(at).and_then(|word| word.to_str()).filter(|word| !word.is_empty());
    let Some(action) = text(0) else { return failed("no action specified") };
    if words.has("config") && words.has("config-file") {
        return failed(
            "--config and --config-file are mutually incompatible. Please define one or the other, but not both",
        );
    }
    if action == "list" {
        return Ok(Asked::List);
    }
    let Some(name) = text(1) else { return failed("no container name specified") };
    let name = name.to_owned();
    if crate::configured::check_name(&name).is_err() {
        return failed("invalid container name");
    }
    if let Some(option) = FOR_NIX.iter().find(|option| words.has(option)) {
        return failed(&format!(
            "nixrun does not hand --{option} on to Nix; set it in nix.conf or NIX_CONFIG"
        ));
    }
    if action == "create" {
        let words = create(&words, &name);
        return Ok(Asked::Create { name, words });
    }
    let action = match action {
        "destroy" => Action::Destroy,
        "status" => Action::Status,
        "show-ip" => Action::ShowIp,
        "show-host-key" => Action::ShowHostKey,
        "start" | "stop" | "restart" | "terminate" | "login" | "root-login" => {
            Action::Command(vec![action.into(), "--".into(), name.clone().into()])
        }
        "update" => Action::Command([vec!["update".into()], named(&words, UPDATE), behind(&name)].concat()),
        "run" => {
            let begin: Vec<OsString> = vec!["run".into(), name.clone().into(), "--".into()];
            Action::Command([begin, words.rest[2..].to_vec()].concat())
        }
        unknown => return failed(&format!("unknown action ‘{unknown}’")),
    };
    Ok(Asked::Of { name, action })
}

/// What Perl's `die` exits with when no system call has failed.
pub const FAILED: u8 = 255;
/// And when a file was not there: ENOENT.
pub const NO_SUCH_FILE: u8 = 2;

fn create(words: &Words, name: &str) -> Vec<OsString> {
    let flags = ["ensure-unique-name", "auto-start"].into_iter().filter(|flag| words.has(flag));
    let flags: Vec<OsString> = flags.map(|flag| format!("--{flag}").into()).collect();
    [vec!["create".into()], flags, named(words, CREATE), behind(name)].concat()
}

/// Options as nixrun takes them. One that has no value asks for nothing: scripts pass `--config "$EMPTY"`.
fn named(words: &Words, known: &[&str]) -> Vec<OsString> {
    let given = known.iter().filter_map(|name| Some((name, words.value(name)?)));
    given
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            word
        })
        .collect()
}

fn behind(name: &str) -> Vec<OsString> {
    vec!["--".into(), name.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Asked, (String, u8)> {
        parse(&line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn command(line: &[&str]) -> Vec<String> {
        let words = match parsed(line) {
            Ok(Asked::Create { words, .. } | Asked::Of { action: Action::Command(words), .. }) => words,
            other => panic!("{line:?}: {other:?}"),
        };
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn actions_become_nixruns_commands() {
        assert_eq!(
            command(&["create", "foo", "--system-path", "/nix/store/x", "--port", "80", "--auto-start"]),
            ["create", "--auto-start", "--system-path=/nix/store/x", "--port=80", "--", "foo"]
        );
        assert_eq!(command(&["run", "foo", "--", "ls", "-l"]), ["run", "foo", "--", "ls", "-l"]);
        assert_eq!(command(&["stop", "foo"]), ["stop", "--", "foo"]);
        assert_eq!(
            command(&["update", "foo", "--config", "", "--flake", "a#b"]),
            ["update", "--flake=a#b", "--", "foo"]
        );
        assert_eq!(parsed(&["list"]), Ok(Asked::List));
        assert_eq!(parsed(&["--help", "list"]), Ok(Asked::Help));
        let of = Asked::Of { name: "foo".to_owned(), action: Action::ShowIp };
        assert_eq!(parsed(&["show-ip", "foo"]), Ok(of));
    }

    #[test]
    fn refusals_have_nixpkgs_words() {
        for (line, said, code) in [
            (&[][..], "no action specified", 255),
            (&["start"], "no container name specified", 255),
            (&["start", "a_b"], "invalid container name", 255),
            (&["fly", "a"], "unknown action ‘fly’", 255),
            (&["create", "a", "--host-address", "1.2.3.4"], "With --host-address set", 255),
            (&["create", "a", "--config", "x", "--config-file", "y"], "mutually incompatible", 255),
            (&["create", "a", "--impure"], "--impure", 255),
            (&["--nope"], "Unknown option: nope", 1),
        ] {
            let (sentence, found) = parsed(line).unwrap_err();
            assert!(sentence.contains(said) && found == code, "{line:?}: {sentence} ({found})");
        }
    }
}

//! A target for each parser of nixrun.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fuzz::{assert_sentence, class_of};
use nixrun::archive::manifest::Manifest;
use nixrun::archive::member::{Member, Records};
use nixrun::archive::read::{Sink, read};
use nixrun::archive::zstd::Decoder;
use nixrun::journal::{Journal, JournalFile};
use nixrun::systemd_nspawn::{self, Asked, CredentialSource, OPTIONS, Stop, Surroundings, getopt};
use nixrun::{env_file, json, nixos_conf};
use runtime::HostPaths;

const PROGRAM: &str = "systemd-nspawn";

/// A word a line; a vertical tab stands for the newline that a word may have, too.
fn words(input: &[u8]) -> Vec<OsString> {
    let word = |line: &[u8]| {
        let bytes: Vec<u8> = line.iter().map(|byte| if *byte == 0x0b { b'\n' } else { *byte }).collect();
        OsStr::from_bytes(&bytes).to_owned()
    };
    input.split(|byte| *byte == b'\n').map(word).collect()
}

/// The same options, each as `--name=value` where it has a name.
fn canonical(words: &[OsString]) -> Vec<OsString> {
    let mut all = getopt::Words::new(words);
    let mut written = Vec::new();
    for given in all.by_ref() {
        let Ok(given) = given else { break };
        let entry = given.entry();
        let mut word = match entry.short {
            _ if !entry.long.is_empty() => OsString::from(format!("--{}", entry.long)),
            Some(letter) => OsString::from(format!("-{letter}")),
            None => OsString::new(),
        };
        if let Some(value) = &given.value {
            word.push("=");
            word.push(value);
        }
        written.push(word);
    }
    written.push("--".into());
    written.extend(all.rest().iter().cloned());
    written
}

/// What a command line would be translated against: nothing outside of `root` is read but what it names.
fn meaning(asked: Asked, root: &Path) -> String {
    // A file that a mutation names may be one that never ends.
    if asked.credentials.iter().any(|(_, source)| matches!(source, CredentialSource::File(_))) {
        return String::new();
    }
    let paths = HostPaths::below(root);
    let around =
        Surroundings { here: root, variable: &|_| None, paths: &paths, terminal: false, listen_fds: 0 };
    match systemd_nspawn::meaning(asked, around) {
        Ok(meaning) => {
            meaning.request.notes.iter().for_each(|note| assert_sentence(note));
            "a container".to_owned()
        }
        Err(sentence) => {
            assert_sentence(&sentence);
            class_of(&sentence)
        }
    }
}

#[test]
fn nspawn_command_line() {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(root.path().join("usr")).expect("a directory");
    let long: Vec<String> = OPTIONS.iter().map(|entry| format!("\n--{}=", entry.long)).collect();
    let values = [
        "yes",
        "no",
        "help",
        "infinity",
        "/usr",
        "/proc",
        "pick",
        "identity",
        "tcp:80:80",
        "\n-b",
        "\n-x",
        "\n--\n",
    ];
    let tokens: Vec<&str> = long.iter().map(String::as_str).chain(values).collect();
    fuzz::run("nspawn_command_line", &tokens, |input| {
        let words = words(input);
        match systemd_nspawn::parse(PROGRAM, &words, root.path()) {
            Ok(asked) => {
                let again = systemd_nspawn::parse(PROGRAM, &canonical(&words), root.path());
                assert_eq!(again.as_ref(), Ok(&asked), "the canonical form means something else");
                meaning(asked, root.path())
            }
            Err(Stop::Print(text)) => class_of(&text),
            Err(Stop::Fault(sentence)) => {
                assert_sentence(&sentence);
                class_of(&sentence)
            }
        }
    });
}

#[test]
fn nspawn_settings() {
    let mut tokens: Vec<String> =
        ["\n[Exec]\n", "\n[Files]\n", "\n[Network]\n", "yes", "help", " \\\n", "~", ":"]
            .map(str::to_owned)
            .into();
    tokens.extend(OPTIONS.iter().flat_map(|entry| entry.keys).map(|key| format!("\n{}=", key.name)));
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    fuzz::run("nspawn_settings", &tokens, |input| {
        let read =
            |trusted| systemd_nspawn::settings_file(input, Path::new("/x.nspawn"), trusted, Path::new("/"));
        // Whoever may say less must not reach more.
        if let Ok((asked, _)) = read(false) {
            assert!(asked.mounts.is_empty() && asked.capability.is_empty() && !asked.network.is_private());
        }
        match read(true) {
            Ok((_, warnings)) => {
                warnings.iter().for_each(|warning| assert_sentence(warning));
                // Which kinds of warnings there are, behind file and line.
                let kind = |warning: &String| {
                    let sentence = warning.splitn(3, ':').last().unwrap_or_default();
                    sentence.chars().take(24).collect::<String>()
                };
                let mut kinds: Vec<String> = warnings.iter().map(kind).collect();
                kinds.sort();
                kinds.dedup();
                kinds.truncate(3);
                kinds.concat()
            }
            Err(sentence) => {
                assert_sentence(&sentence);
                class_of(&sentence)
            }
        }
    });
}

#[test]
fn nixos_container_conf() {
    let tokens = [
        "\nSYSTEM_PATH=/nix/store/",
        "\nPRIVATE_NETWORK=1",
        "\nHOST_ADDRESS=",
        "\nLOCAL_ADDRESS6=",
        "\nHOST_PORT=tcp:",
        "\nHOST_BRIDGE=",
        "\nLOCAL_MAC_ADDRESS=",
        "\nPRIVATE_USERS=",
        "\nINTERFACES=",
        "\nEXTRA_NSPAWN_FLAGS=\"",
        "10.0.0.1",
        "fc00::1",
        "/24",
        "'",
        "\"",
        "\\\n",
        ",",
    ];
    fuzz::run("nixos_container_conf", &tokens, |input| {
        let text = String::from_utf8_lossy(input);
        let lines = text.matches('\n').count() + 1;
        let assignments = env_file::parse(&text);
        assert!(assignments.iter().all(|one| (1..=lines).contains(&(one.line as usize))));
        // Written with quotes, the values read back.
        let quote = |value: &str| {
            value.replace('\\', "\\\\").replace('"', "\\\"").replace('`', "\\`").replace('$', "\\$")
        };
        let written: String =
            assignments.iter().map(|one| format!("{}=\"{}\"\n", one.key, quote(&one.value))).collect();
        let again = env_file::parse(&written);
        let pairs = |all: &[env_file::Assignment]| -> Vec<(String, String)> {
            all.iter().map(|one| (one.key.clone(), one.value.clone())).collect()
        };
        assert_eq!(pairs(&again), pairs(&assignments));
        match nixos_conf::parse(&text, Path::new("/x.conf")) {
            Ok(_) => format!("{} assignments", assignments.len().min(20)),
            Err(error) => {
                let sentence = error.to_string();
                assert_sentence(&sentence);
                class_of(&sentence)
            }
        }
    });
}

/// Takes everything and makes nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn manifest(&mut self, _manifest: Manifest) -> std::io::Result<()> {
        Ok(())
    }

    fn member(&mut self, member: Member, data: &mut dyn std::io::Read) -> std::io::Result<()> {
        let plain = member.path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        assert!(plain, "{:?} leads elsewhere", member.path);
        // What is read is written the same way.
        let (records, header, map) = member.encode();
        let records = Records::parse(&Records::encode(&records)).expect("our own records");
        let size = header.entry_size().expect("our own size");
        let again = Member::decode(&header, &records, size, &mut &map[..]).expect("our own member");
        assert_eq!(again, member);
        std::io::copy(data, &mut std::io::sink()).map(drop)
    }
}

#[test]
fn container_archive() {
    let tokens = [
        "root/",
        "..",
        "/",
        "\0",
        "SCHILY.xattr.user.x=",
        "GNU.sparse.major=1",
        "mtime=-1.5",
        "path=root/",
        "1\n",
        "nixrun.end",
    ];
    fuzz::run("container_archive", &tokens, |input| {
        let mut input = input.to_vec();
        // Else next to nothing would get past the checksum of its header.
        for block in input.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        match read(&input[..], &mut Nowhere) {
            Ok(totals) => format!("{} files", totals.files),
            Err(error) => {
                let sentence = error.to_string();
                assert_sentence(&sentence);
                class_of(&sentence)
            }
        }
    });
}

#[test]
fn zstd_frames() {
    fuzz::run("zstd_frames", &["\u{28}\u{b5}\u{2f}"], |input| {
        let mut limited = std::io::Read::take(Decoder::new(input), 1 << 22);
        match std::io::copy(&mut limited, &mut std::io::sink()) {
            Ok(bytes) => format!("{} bytes", bytes.checked_ilog2().unwrap_or(0)),
            Err(error) => {
                let sentence = error.to_string();
                assert_sentence(&sentence);
                class_of(&sentence)
            }
        }
    });
}

#[test]
fn container_json() {
    let schema = serde_json::to_value(json::schema()).expect("a schema");
    let keys: Vec<String> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| format!(",\"{key}\":"))
        .collect();
    let values = [
        "{", "}", "[", "]", ":", ",", "\"", "null", "true", "-1", "1.5", "\"2G\"", "\"/\"", "\"auto\"",
        "\\u0000",
    ];
    let tokens: Vec<&str> = keys.iter().map(String::as_str).chain(values).collect();
    fuzz::run("container_json", &tokens, |input| match json::parse(input, Path::new("/x.json")) {
        // What is read is JSON in the eyes of others, too.
        Ok(_) => {
            let value: serde_json::Value = serde_json::from_slice(input).expect("JSON");
            format!("{} keys", value.as_object().expect("an object").len().min(20))
        }
        Err(error) => {
            let sentence = error.to_string();
            assert_sentence(&sentence);
            assert!(sentence.starts_with("/x.json:") && sentence.len() < 2000, "{sentence}");
            class_of(&sentence)
        }
    });
}

/// The journal of a container, which writes it: read in both directions, with every field.
#[test]
fn journal_file() {
    fuzz::run("journal_file", &["LPKSHHRH", "\0\0\0\0", "\x18\0\0\0\0\0\0\0"], |input| {
        let open = || {
            let mut file = tempfile::tempfile().expect("a file");
            std::io::Write::write_all(&mut file, input).expect("it can be written");
            JournalFile::open(file)
        };
        match open() {
            Ok(file) => {
                let entries = file.entries();
                let mut journal = Journal::default();
                journal.add(file);
                let forwards = journal
                    .by_ref()
                    .filter(|entry| entry.get("MESSAGE").is_none_or(|text| text.len() < 1 << 30))
                    .count();
                let mut journal = Journal::default();
                journal.add(open().expect("it was one before"));
                let backwards = journal.latest(usize::MAX, |entry| entry.realtime() > 0).len();
                assert!(forwards as u64 <= entries && backwards as u64 <= entries);
                format!("{} {}", forwards.min(4), backwards.min(4))
            }
            Err(fault) => {
                assert_sentence(&fault.to_string());
                class_of(&fault.to_string())
            }
        }
    });
}

//! What a container's files set, each with its place. The files are read as they are: what they mean together, and
//! whether it makes sense, the plan says.

use std::fs;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::unreadable;
use crate::configured::Files;
use crate::env_file;
use crate::ops::Result;
use crate::settings;

/// What stands in the place of a secret.
const SECRET: &str = "(secret)";

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Setting {
    /// Its name in the JSON file, whichever file sets it; one that only NAME.conf has is under its name there.
    pub key: String,
    /// Its value: text in NAME.conf.
    pub value: Value,
    /// The file that sets it.
    pub file: PathBuf,
    /// The line, in NAME.conf.
    pub line: Option<u32>,
}

/// The settings of both files.
pub(super) fn settings(files: &Files) -> Result<Vec<Setting>> {
    let read = |file: &Path| fs::read(file).map_err(|error| unreadable(file, &error));
    let mut all = Vec::new();
    if let Some(file) = &files.conf {
        all.extend(of_conf(&String::from_utf8_lossy(&read(file)?), file));
    }
    if let Some(file) = &files.json {
        // What is no JSON sets nothing; why there is no plan says so.
        let value = serde_json::from_slice(&read(file)?).unwrap_or(Value::Null);
        all.extend(of_json(value, file));
    }
    Ok(all)
}

fn of_conf(text: &str, file: &Path) -> Vec<Setting> {
    let assignments = env_file::parse(text);
    let counts = |at: usize| assignments[at + 1..].iter().all(|later| later.key != assignments[at].key);
    let mut all = Vec::new();
    for (at, one) in assignments.iter().enumerate() {
        if one.value.is_empty() || !counts(at) {
            continue;
        }
        let value = Value::String(without_secrets(&one.value));
        all.push(Setting { key: json_name(&one.key), value, file: file.into(), line: Some(one.line) });
    }
    all
}

fn of_json(value: Value, file: &Path) -> Vec<Setting> {
    let Value::Object(mut object) = value else { return Vec::new() };
    let credentials = object.get_mut("credentials").and_then(Value::as_object_mut);
    for credential in credentials.into_iter().flat_map(|credentials| credentials.values_mut()) {
        if let Some(text) = credential.get_mut("text") {
            *text = SECRET.into();
        }
    }
    let set = object.into_iter().filter(|(key, value)| !value.is_null() && key != "$schema");
    set.map(|(key, value)| Setting { key, value, file: file.into(), line: None }).collect()
}

/// The JSON's name for a key of NAME.conf.
fn json_name(conf: &str) -> String {
    // One without a counterpart, or of which the JSON has no more than a part, keeps its own.
    let known = settings::KEYS.iter().find(|key| key.conf == conf && !key.json.is_empty() && conf != "FLAKE");
    known.map_or(conf, |key| key.json).to_owned()
}

/// Flags of systemd-nspawn without the values of `--set-credential`.
fn without_secrets(value: &str) -> String {
    let mut next = false;
    let word = |word: &str| {
        let hidden = |credential: &str| match credential.split_once(':') {
            Some((id, _)) => format!("{id}:{SECRET}"),
            None => credential.to_owned(),
        };
        let is_next = std::mem::replace(&mut next, word == "--set-credential");
        match word.strip_prefix("--set-credential=") {
            Some(credential) => format!("--set-credential={}", hidden(credential)),
            None if is_next => hidden(word),
            None => word.to_owned(),
        }
    };
    if value.contains("--set-credential") {
        value.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_told_with_their_places_and_without_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let (conf, json) = (dir.path().join("web.conf"), dir.path().join("web.json"));
        fs::write(&conf, "PRIVATE_NETWORK=0\n\nPRIVATE_NETWORK=1\nEMPTY=\nOWN=x\nEXTRA_NSPAWN_FLAGS=--quiet --set-credential=a:b:c\n").unwrap();
        fs::write(&json, r#"{"$schema": "x", "zone": null, "hostname": "w", "credentials": {"a": {"text": "s3cret"}, "b": {"file": "/f"}}}"#).unwrap();
        let all = settings(&Files { conf: Some(conf.clone()), json: Some(json.clone()) }).unwrap();
        let told: Vec<String> =
            all.iter().map(|one| format!("{} {} {:?}", one.key, one.value, one.line)).collect();
        assert_eq!(
            told,
            [
                "privateNetwork \"1\" Some(3)",
                "OWN \"x\" Some(5)",
                "EXTRA_NSPAWN_FLAGS \"--quiet --set-credential=a:(secret)\" Some(6)",
                "credentials {\"a\":{\"text\":\"(secret)\"},\"b\":{\"file\":\"/f\"}} None",
                "hostname \"w\" None",
            ]
        );
        assert_eq!((&all[0].file, &all[4].file), (&conf, &json));
        assert_eq!(without_secrets("--set-credential a:b --x"), "--set-credential a:(secret) --x");
        fs::write(&json, "{").unwrap();
        assert_eq!(settings(&Files { conf: None, json: Some(json) }).unwrap(), []);
    }
}

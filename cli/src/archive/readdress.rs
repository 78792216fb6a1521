//! Other addresses for an imported container: in both of its files, in place of those that it had.

use std::path::{Path, PathBuf};

use runtime::HostPaths;

use crate::json::Document;
use crate::life::{self, Fresh};
use crate::ops::{Error, Result};

/// Writes addresses of the pool into the texts, for those families that the container has addresses of. The pool is
/// locked until what is returned is dropped: the files are to be there by then.
pub(super) fn readdress(
    document: &Document,
    files: &mut [(PathBuf, u32, String)],
    warnings: &mut Vec<String>,
    paths: &HostPaths,
) -> Result<Fresh> {
    let four = document.local_address.is_some() || document.host_address.is_some();
    let six = document.local_address6.is_some() || document.host_address6.is_some();
    let fresh = life::fresh(four, six, paths)?;
    let mut new: Vec<(&str, &str, String)> = Vec::new();
    if let Some((host, local)) = fresh.four {
        new.push(("HOST_ADDRESS", "hostAddress", host.to_string()));
        new.push(("LOCAL_ADDRESS", "localAddress", local.to_string()));
    }
    let (host6, local6) =
        fresh.six.map(|(host, local)| (host.to_string(), local.to_string())).unwrap_or_default();
    if six {
        if fresh.six.is_none() {
            let why = "it has no IPv6 addresses any more: this host has no addressPool6 in /etc/nixrun.json";
            warnings.push(why.to_owned());
        }
        new.push(("HOST_ADDRESS6", "hostAddress6", host6));
        new.push(("LOCAL_ADDRESS6", "localAddress6", local6));
    }
    for (path, _, text) in files {
        *text = if path.extension().is_some_and(|extension| extension == "json") {
            in_json(text, &new, path)?
        } else {
            in_conf(text, &new)
        };
    }
    Ok(fresh)
}

/// Only keys that are there get another value: what one file does not say the other one does.
fn in_conf(text: &str, new: &[(&str, &str, String)]) -> String {
    let line = |line: &str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        match new.iter().find(|(conf, ..)| *conf == key) {
            Some((_, _, value)) if value.is_empty() => String::new(),
            Some((conf, _, value)) => format!("{conf}={value}\n"),
            None => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

fn in_json(text: &str, new: &[(&str, &str, String)], path: &Path) -> Result<String> {
    let there: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let keys = new.iter().filter(|(_, key, _)| there.get(key).is_some());
    let settings: Vec<String> = keys.map(|(_, key, value)| format!("{key}={value}")).collect();
    if settings.is_empty() {
        return Ok(text.to_owned());
    }
    life::edit::edit(text, &settings, path).map_err(|error| Error::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_there_is_replaced() {
        let new = [
            ("HOST_ADDRESS", "hostAddress", "10.0.0.1".to_owned()),
            ("LOCAL_ADDRESS", "localAddress", "10.0.0.2".to_owned()),
            ("LOCAL_ADDRESS6", "localAddress6", String::new()),
        ];
        let conf = "# HOST_ADDRESS=1.1.1.1\n HOST_ADDRESS=1.1.1.1\nLOCAL_ADDRESS6=fd00::1\nFLAKE=x=y";
        assert_eq!(in_conf(conf, &new), "# HOST_ADDRESS=1.1.1.1\nHOST_ADDRESS=10.0.0.1\nFLAKE=x=y\n");
        let json =
            in_json(r#"{"localAddress": "1.1.1.2", "autoStart": true}"#, &new, Path::new("/x")).unwrap();
        assert!(
            json.contains("10.0.0.2") && !json.contains("hostAddress") && json.contains("autoStart"),
            "{json}"
        );
    }
}

//! The first member of an archive: what is needed to make the container elsewhere, beside its files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{configured, systems};

/// The format that this version writes, and the latest that it reads.
pub const FORMAT: u32 = 1;

/// An exported container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`]. It grows when older versions would get something wrong; keys that they may ignore are simply added.
    pub format: u32,
    /// The container's name.
    pub name: String,
    /// The nixrun that wrote it.
    pub nixrun: String,
    /// When, as in RFC 3339, in UTC.
    pub date: String,
    /// `NAME.conf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conf: Option<Text>,
    /// `NAME.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Text>,
    /// Store path of the system that it boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<PathBuf>,
    /// The generations of its profile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<Generation>,
    /// The present one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The first of the host's ids that the files belonged to. The archive has the container's ids, whatever this is.
    #[serde(default)]
    pub ids_from: u32,
    /// Whether the archive has a root directory; a container that was never started has none.
    pub root: bool,
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub text: String,
}

/// A system that the container has had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number in the profile.
    pub number: u64,
    /// Its store path.
    pub system: PathBuf,
}

/// Why what is called a manifest is none that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is no JSON, or lacks something.
    #[error("its manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A later version wrote it.
    #[error(
        "it has format {0}, and this nixrun reads up to {FORMAT}; use the one that wrote it, or a later one"
    )]
    Format(u32),
    /// What it says makes no sense.
    #[error("its manifest is wrong: {0}")]
    Wrong(String),
}

impl Manifest {
    /// Reads one. What is not known is ignored.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        /// Alone, because nothing else is certain in another format.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(text)?;
        if head.format == 0 || head.format > FORMAT {
            return Err(ManifestError::Format(head.format));
        }
        let manifest: Manifest = serde_json::from_slice(text)?;
        let wrong = |what: String| Err(ManifestError::Wrong(what));
        if let Err(error) = configured::check_name(&manifest.name) {
            return wrong(error.to_string());
        }
        if manifest.conf.is_none() && manifest.json.is_none() {
            return wrong("there is no configuration in it".to_owned());
        }
        let systems = manifest.generations.iter().map(|generation| &generation.system);
        if let Some(path) = systems.chain(&manifest.system).find(|path| !systems::is_store_path(path)) {
            return wrong(format!("{path:?} is no path in the Nix store"));
        }
        let numbers: std::collections::BTreeSet<u64> =
            manifest.generations.iter().map(|generation| generation.number).collect();
        if numbers.len() != manifest.generations.len() {
            return wrong("a generation is in it twice".to_owned());
        }
        if let Some(present) = manifest.generation.filter(|number| !numbers.contains(number)) {
            return wrong(format!("generation {present} is not among those of its profile"));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lead_astray_is_refused() {
        let good = r#"{"format":1,"name":"web","nixrun":"1","date":"","root":true,"conf":{"mode":420,"text":""},"new":1}"#;
        Manifest::parse(good.as_bytes()).unwrap();
        for (from, to, says) in [
            ("\"format\":1", "\"format\":2", "has format 2"),
            ("\"web\"", "\"../web\"", "cannot name a container"),
            ("\"conf\"", "\"none\"", "no configuration"),
            ("\"new\":1", "\"system\":\"/nix/store/../etc\"", "no path in the Nix store"),
            ("\"new\":1", "\"generation\":3", "generation 3 is not among"),
            ("\"root\":true,", "", "missing field `root`"),
        ] {
            let error = Manifest::parse(good.replace(from, to).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

//! What is put into the container of the host's files, as operations: what cannot be had is told, and no error.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::script::relative;
use crate::child::files::{Offer, What};
use crate::child::script::{Op, Script};
use crate::error::{Doing, Error};
use crate::host::c_path;
use crate::plan::{MountPlan, Source};

/// Longest file of the host that is copied into a container, in bytes.
const LONGEST: u64 = 1 << 20;

/// Whether a step is one of these.
pub(super) fn is_offer(source: &Source) -> bool {
    let files = matches!(source, Source::HostFile { .. } | Source::Copy { .. } | Source::Symlink { .. });
    files || matches!(source, Source::NameServers { .. } | Source::Delete | Source::Journal)
}

/// The operation of one of these steps, whose mount is `tree` if it has one.
pub(super) fn step(
    script: &mut Script,
    mount: &MountPlan,
    tree: Option<&OwnedFd>,
    warnings: &mut Vec<String>,
) -> Result<Option<Op>, Error> {
    let what = match (&mount.source, tree) {
        (Source::HostFile { path, follow, unless }, Some(tree)) => {
            let content = script.put(&read(path).unwrap_or_default());
            let unless = unless.as_deref().map(relative).transpose()?.map(|path| script.string(&path));
            let follow =
                follow.then(|| relative(&mount.target)).transpose()?.map(|path| script.string(&path));
            What::Mount { tree: tree.as_raw_fd(), content, follow, unless }
        }
        (Source::Copy { from, replace }, _) => match read(from) {
            Ok(content) => {
                let content = script.put(&content);
                if *replace { What::Replace { content } } else { What::Fill { content } }
            }
            Err(error) => {
                warnings.push(error.to_string());
                return Ok(None);
            }
        },
        (Source::NameServers { text, replace }, _) => {
            let content = script.put(text.as_bytes());
            if *replace { What::Replace { content } } else { What::Keep { content } }
        }
        (Source::Symlink { to, needs }, _) => {
            What::Link { to: script.string(&c_path(to)?), needs: script.string(&relative(needs)?) }
        }
        (Source::Delete, _) => What::Delete,
        _ => return Ok(None),
    };
    let directory = script.string(&relative(mount.target.parent().unwrap_or(Path::new("/")))?);
    let name = script.string(&c_path(Path::new(mount.target.file_name().unwrap_or_default()))?);
    Ok(Some(Op::Offer(Offer { directory, name, what })))
}

fn read(from: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    File::open(from)
        .and_then(|file| file.take(LONGEST).read_to_end(&mut content))
        .doing(|| format!("read {}", from.display()))?;
    Ok(content)
}

//! The container's journal and the host's: nspawn's rules (v256, `setup_journal`), but that what is only tried never
//! keeps the container from starting.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::config::JournalLink;
use crate::error::{Error, ErrorKind};
use crate::plan::{Attributes, JOURNAL, JournalPlan, MountPlan, Plan, Source};
use crate::rootfs::Root;

/// Links the journals, and turns the plan's step for them into what it is for this machine id.
pub(super) fn connect(
    plan: &mut Plan,
    root: &Root,
    uuid: [u8; 16],
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(journal) = plan.journal.clone() else { return Ok(()) };
    let id: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let source = match source(&journal, &id, &plan.rootfs, uuid) {
        Ok(source) => source,
        // Nothing to link to, which is what `optional` is about: systemd-nspawn says nothing either.
        Err(_) if journal.optional && !journal.directory.is_dir() => None,
        Err(why) if journal.optional => {
            warnings.push(format!("the container's journal is not linked to the host's: {why}"));
            None
        }
        Err(why) => {
            return Err(Error::new(
                ErrorKind::System,
                format!("cannot link the journal of container {}: {why}", plan.name),
            ));
        }
    };
    let target = Path::new(JOURNAL).join(id);
    if matches!(source, Some(Source::HostPath { .. })) && has_entries(root, &target) {
        warnings
            .push(format!("{} of the container is not empty, and hidden by the host's", target.display()));
    }
    let step =
        source.map(|source| MountPlan { target, source, attributes: Attributes::default(), ids: None });
    if let Some(at) = plan.mounts.iter().position(|mount| mount.source == Source::Journal) {
        plan.mounts.splice(at..=at, step);
    }
    Ok(())
}

/// What the container's directory becomes; nothing, where there is nothing to link.
fn source(journal: &JournalPlan, id: &str, rootfs: &Path, uuid: [u8; 16]) -> Result<Option<Source>, String> {
    if uuid == journal.host_id {
        return Err(format!("its machine id {id} is the host's own"));
    }
    let ours = journal.directory.join(id);
    let theirs = rootfs.join(JOURNAL.trim_start_matches('/')).join(id);
    if is_mount_point(&ours) {
        return Err(format!("{} is a mount point", ours.display()));
    }
    let failed = |doing: &str, error: io::Error| format!("cannot {doing} {}: {error}", ours.display());
    match fs::read_link(&ours) {
        Ok(to) if to == theirs && journal.mode != JournalLink::Host => return Ok(Some(Source::Directory)),
        // Of another root, or of another way of linking.
        Ok(_) => fs::remove_file(&ours).map_err(|error| failed("remove the link", error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // No link. A directory with journals in it is not ours to remove.
        Err(_) if journal.mode == JournalLink::Guest => {
            fs::remove_dir(&ours).map_err(|error| failed("put a link in the place of", error))?;
        }
        Err(_) => {}
    }
    match journal.mode {
        JournalLink::Guest => {
            symlink(&theirs, &ours).map_err(|error| failed("make the link", error))?;
            return Ok(Some(Source::Directory));
        }
        // Without parents: a host without a persistent journal is not made to have one.
        JournalLink::Host => match fs::DirBuilder::new().mode(0o755).create(&ours) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make the directory", error));
            }
            _ => {}
        },
        JournalLink::Auto | JournalLink::No => {}
    }
    Ok(ours.is_dir().then(|| bind(ours)))
}

fn bind(path: PathBuf) -> Source {
    Source::HostPath { path, recursive: true, make: true }
}

/// A directory on another file system than its parent's. A bind mount of the same one is taken for none, as it would
/// be for a root that is bind mounted itself.
fn is_mount_point(path: &Path) -> bool {
    let device =
        |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|meta| meta.dev());
    device(path).is_some_and(|own| path.parent().and_then(device).is_some_and(|above| above != own))
}

fn has_entries(root: &Root, path: &Path) -> bool {
    root.entries(path).is_some_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    struct Case {
        dir: tempfile::TempDir,
        uuid: [u8; 16],
    }

    impl Case {
        fn new() -> Case {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("journal")).unwrap();
            Case { dir, uuid: crate::rootfs::parse_uuid(ID).unwrap() }
        }

        fn ours(&self) -> PathBuf {
            self.dir.path().join("journal").join(ID)
        }

        fn theirs(&self) -> PathBuf {
            self.dir.path().join("root/var/log/journal").join(ID)
        }

        fn source(&self, mode: JournalLink) -> Result<Option<Source>, String> {
            let directory = self.dir.path().join("journal");
            let plan = JournalPlan { mode, optional: false, directory, host_id: [1; 16] };
            source(&plan, ID, &self.dir.path().join("root"), self.uuid)
        }
    }

    #[test]
    fn a_guests_journal_is_a_link_of_the_host() {
        let case = Case::new();
        for _ in 0..2 {
            assert_eq!(case.source(JournalLink::Guest), Ok(Some(Source::Directory)));
            assert_eq!(fs::read_link(case.ours()).unwrap(), case.theirs());
        }
        // An empty directory makes way, and one with journals in it does not.
        fs::remove_file(case.ours()).unwrap();
        fs::create_dir(case.ours()).unwrap();
        assert_eq!(case.source(JournalLink::Guest), Ok(Some(Source::Directory)));
        fs::remove_file(case.ours()).unwrap();
        fs::create_dir(case.ours()).unwrap();
        fs::write(case.ours().join("system.journal"), "").unwrap();
        assert!(case.source(JournalLink::Guest).unwrap_err().contains("put a link in the place of"));
        // The link of another root is replaced.
        fs::remove_dir_all(case.ours()).unwrap();
        symlink("/elsewhere", case.ours()).unwrap();
        assert_eq!(case.source(JournalLink::Guest), Ok(Some(Source::Directory)));
        assert_eq!(fs::read_link(case.ours()).unwrap(), case.theirs());
    }

    #[test]
    fn a_hosts_journal_is_mounted_where_the_host_has_one() {
        let case = Case::new();
        assert_eq!(case.source(JournalLink::Auto), Ok(None));
        assert!(!case.ours().exists());
        let mounted = Ok(Some(bind(case.ours())));
        assert_eq!(case.source(JournalLink::Host), mounted);
        assert_eq!(case.source(JournalLink::Host), mounted);
        assert_eq!(case.source(JournalLink::Auto), mounted);
        // A guest's link makes way for `host`; `auto` keeps it.
        fs::remove_dir(case.ours()).unwrap();
        symlink(case.theirs(), case.ours()).unwrap();
        assert_eq!(case.source(JournalLink::Auto), Ok(Some(Source::Directory)));
        assert_eq!(case.source(JournalLink::Host), mounted);
        fs::remove_dir_all(case.dir.path().join("journal")).unwrap();
        assert!(case.source(JournalLink::Host).unwrap_err().contains("make the directory"));
        assert!(case.source(JournalLink::Guest).unwrap_err().contains("make the link"));
    }

    #[test]
    fn the_hosts_own_id_is_refused() {
        let case = Case { uuid: [1; 16], ..Case::new() };
        assert!(case.source(JournalLink::Guest).unwrap_err().contains("is the host's own"));
        assert!(!case.ours().exists());
    }
}

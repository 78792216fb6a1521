//! The directory that holds what is built once: the image, the saved machine, the closure's disk.
//!
//! Each entry is a directory with a file `inputs`: the text of everything it was made from. An entry whose
//! text differs from today's is built anew, beside the old one, and exchanged when complete. Everyone who
//! runs machines holds the directory's lock shared; who builds holds it alone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::Error;

/// The directory used unless another is named: `NIXRUN_VM`, or target/vm of the workspace.
#[must_use]
pub fn default_directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("NIXRUN_VM").map_or_else(|| workspace.join("target/vm"), PathBuf::from)
}

/// An open cache directory. Its lock is held, shared, until this is dropped.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    lock: File,
}

impl Cache {
    /// Opens `dir`, which is created when missing, and waits for whoever builds in it.
    ///
    /// # Errors
    /// When the directory or its lock file cannot be made.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let dir = dir.canonicalize().map_err(Error::file("resolve", dir))?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(Error::file("create", &path))?;
        // Alone here: what a killed runner left behind has no owner any more.
        if lock.try_lock().is_ok() {
            remove_stale_runs(&dir)?;
        }
        lock.lock_shared().map_err(Error::file("lock", &path))?;
        Ok(Self { dir, lock })
    }

    /// Where the entry `name` lies, built or not.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A directory for one run, removed when dropped.
    pub(crate) fn run_directory(&self) -> Result<TempDir, Error> {
        tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&self.dir)
            .map_err(Error::file("create a directory in", &self.dir))
    }

    /// Makes sure that the entry `name` was made from `inputs`; `make` fills the directory it is given.
    /// Returns the entry's path.
    pub(crate) fn ensure(
        &self,
        name: &str,
        inputs: &str,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let entry = self.path(name);
        if is_current(&entry, inputs) {
            return Ok(entry);
        }
        self.lock.lock().map_err(Error::file("lock", &self.dir))?;
        // Another process may have built it while this one waited.
        let built =
            if is_current(&entry, inputs) { Ok(()) } else { self.exchange(name, &entry, inputs, make) };
        self.lock.lock_shared().map_err(Error::file("lock", &self.dir))?;
        built.map(|()| entry)
    }

    fn exchange(
        &self,
        name: &str,
        entry: &Path,
        inputs: &str,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let new = tempfile::Builder::new()
            .prefix(&format!("run-new-{name}-"))
            .tempdir_in(&self.dir)
            .map_err(Error::file("create a directory in", &self.dir))?;
        make(new.path())?;
        let record = new.path().join("inputs");
        fs::write(&record, inputs).map_err(Error::file("write", record))?;
        if entry.exists() {
            fs::remove_dir_all(entry).map_err(Error::file("remove", entry))?;
        }
        fs::rename(new.keep(), entry).map_err(Error::file("rename the new", entry))
    }

    /// Forgets the entry `name`, so that the next `ensure` builds it.
    ///
    /// # Errors
    /// When it exists and cannot be removed.
    pub fn forget(&self, name: &str) -> Result<(), Error> {
        let record = self.path(name).join("inputs");
        match fs::remove_file(&record) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", record)(source))
            }
            _ => Ok(()),
        }
    }
}

fn is_current(entry: &Path, inputs: &str) -> bool {
    fs::read_to_string(entry.join("inputs")).is_ok_and(|made_from| made_from == inputs)
}

fn remove_stale_runs(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::file("list", dir))? {
        let entry = entry.map_err(Error::file("list", dir))?;
        if entry.file_name().to_string_lossy().starts_with("run-") {
            fs::remove_dir_all(entry.path()).map_err(Error::file("remove", entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_with(text: &'static str) -> impl FnOnce(&Path) -> Result<(), Error> {
        move |dir| fs::write(dir.join("content"), text).map_err(Error::file("write", dir))
    }

    fn content(cache: &Cache) -> String {
        fs::read_to_string(cache.path("entry").join("content")).unwrap()
    }

    #[test]
    fn an_entry_is_rebuilt_when_its_inputs_change_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        cache.ensure("entry", "a", make_with("first")).unwrap();
        cache.ensure("entry", "a", make_with("second")).unwrap();
        assert_eq!(content(&cache), "first");
        cache.ensure("entry", "b", make_with("third")).unwrap();
        assert_eq!(content(&cache), "third");
        cache.forget("entry").unwrap();
        cache.ensure("entry", "b", make_with("fourth")).unwrap();
        assert_eq!(content(&cache), "fourth");
    }

    #[test]
    fn a_failed_build_leaves_the_old_entry_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        cache.ensure("entry", "a", make_with("first")).unwrap();
        let failed = cache.ensure("entry", "b", |_| Err(Error::Input("no".into())));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(content(&cache), "first");
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["entry", "lock"]);
    }

    #[test]
    fn leftovers_go_when_nobody_runs_and_stay_while_somebody_does() {
        let dir = tempfile::tempdir().unwrap();
        let leftover = dir.path().join("run-old");
        fs::create_dir(&leftover).unwrap();
        let first = Cache::open(dir.path()).unwrap();
        assert!(!leftover.exists());
        let run = first.run_directory().unwrap();
        let _second = Cache::open(dir.path()).unwrap();
        assert!(run.path().exists());
    }
}

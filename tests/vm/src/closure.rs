//! The disk with a container's store: the closure of its systems, and the Nix database that knows them.
//!
//! It is attached read-only, as /dev/vdc, to every machine whose test asks for one; what it is for is in
//! [`crate::guest::mount_closure`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::disk;
use crate::error::{Error, run};

/// What goes on the disk.
#[derive(Debug, Clone)]
pub struct Closure {
    /// Name of the disk in the cache, such as "base".
    pub name: String,
    /// Where the host keeps the directory that stands for /nix.
    pub nix: PathBuf,
    /// The store paths ("/nix/store/..."), closed under references.
    pub paths: Vec<String>,
    /// Files to put into the disk's root directory: name and content.
    pub files: Vec<(String, String)>,
}

/// Makes the disk where it is missing or holds something else. Returns its path.
///
/// # Errors
/// When a store path or the database cannot be copied, or does not fit on the disk.
pub fn ensure(cache: &Cache, closure: &Closure) -> Result<PathBuf, Error> {
    let inputs = format!("{closure:#?}\n{}\n", disk::CLOSURE_SIZE);
    let entry = cache.ensure(&format!("closure-{}", closure.name), &inputs, |dir| build(dir, closure))?;
    Ok(entry.join("disk"))
}

fn build(dir: &Path, closure: &Closure) -> Result<(), Error> {
    let tree = dir.join("tree");
    let store = tree.join("store");
    let database = tree.join("var/nix/db");
    for path in [&store, &database] {
        fs::create_dir_all(path).map_err(Error::file("create", path))?;
    }
    for path in &closure.paths {
        let Some(name) = path.strip_prefix("/nix/store/") else {
            return Err(Error::Input(format!("{path} is not a store path")));
        };
        copy(&closure.nix.join("store").join(name), &store)?;
    }
    copy(&closure.nix.join("var/nix/db/."), &database)?;
    for (name, text) in &closure.files {
        fs::write(tree.join(name), text).map_err(Error::file("write", tree.join(name)))?;
    }
    disk::make(&dir.join("disk"), &tree, &format!("{}k", disk::CLOSURE_SIZE >> 10))?;
    fs::remove_dir_all(&tree).map_err(Error::file("remove", &tree))
}

fn copy(from: &Path, into: &Path) -> Result<(), Error> {
    run("copy the container's store", Command::new("cp").args(["-a", "--reflink=auto"]).args([from, into]))
        .map(drop)
}

//! Which directory or image is the root, what the container is called, and whether that root can be one.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use runtime::{HostPaths, Volatile};

use super::asked::{Asked, Start};
use crate::configured;
use crate::lookup::lookup;

/// Where machines are looked for by name, in systemd's order.
const MACHINES: [&str; 6] = [
    "/etc/machines",
    "/run/machines",
    "/var/lib/machines",
    "/var/lib/container",
    "/usr/local/lib/machines",
    "/usr/lib/machines",
];

/// What the container is and is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// The directory or image, as given.
    pub(super) root: PathBuf,
    /// Whether it is an image.
    pub(super) image: bool,
    /// Whether it can only be read.
    pub(super) read_only: bool,
    /// The container's name.
    pub(super) machine: String,
    /// Name of its settings file: without what makes the names of ephemeral containers differ.
    pub(super) settings: String,
}

/// Finds root and name.
pub(super) fn names(asked: &Asked, here: &Path, paths: &HostPaths) -> Result<Names, String> {
    let (root, image, read_only) = match (directory(asked, paths), &asked.image) {
        (Some(_), Some(_)) => return Err("--directory= and --image= may not be combined.".to_owned()),
        (Some(directory), None) => (directory, false, false),
        (None, Some(image)) => (image.clone(), true, false),
        (None, None) => match &asked.machine {
            Some(machine) => find_machine(machine, paths)?,
            None => (here.to_owned(), false, false),
        },
    };
    let name = match &asked.machine {
        Some(machine) => machine.clone(),
        None => name_of(&root, image)?,
    };
    let settings = format!("{name}.nspawn");
    let machine = match asked.machine {
        None if asked.ephemeral => with_suffix(&name),
        _ => name,
    };
    Ok(Names { root, image, read_only, machine, settings })
}

/// `--directory=`, or what stands for it.
fn directory(asked: &Asked, paths: &HostPaths) -> Option<PathBuf> {
    match (&asked.directory, &asked.template, &asked.machine) {
        (Some(directory), _, _) => Some(directory.clone()),
        // Of an ephemeral container the template itself can be the root.
        (None, Some(template), _) if asked.ephemeral => Some(template.clone()),
        (None, Some(_), Some(machine)) => Some(paths.join("/var/lib/machines").join(machine)),
        _ => None,
    }
}

fn find_machine(machine: &str, paths: &HostPaths) -> Result<(PathBuf, bool, bool), String> {
    for place in MACHINES.map(|place| paths.join(place)) {
        let directory = place.join(machine);
        match fs::metadata(&directory) {
            Ok(found) if found.is_dir() => return Ok((directory, false, false)),
            Ok(found) if found.file_type().is_block_device() => return Ok((directory, true, false)),
            _ => {}
        }
        let raw = place.join(format!("{machine}.raw"));
        if let Ok(found) = fs::metadata(&raw)
            && (found.is_file() || found.file_type().is_block_device())
        {
            return Ok((raw, true, found.permissions().mode() & 0o222 == 0));
        }
    }
    Err(format!("No image for machine '{machine}'; name its root with --directory= or --image=."))
}

fn name_of(root: &Path, image: bool) -> Result<String, String> {
    let name = match root.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let name = if image { name.strip_suffix(".raw").unwrap_or(&name).to_owned() } else { name };
    let name = clean(&name);
    match configured::check_name(&name) {
        Ok(()) => Ok(name),
        Err(_) => Err("Failed to determine machine name automatically, please use -M.".to_owned()),
    }
}

/// What of a name can be in a hostname.
fn clean(name: &str) -> String {
    let mut clean = String::new();
    for c in name.chars().take(configured::NAME_MAX) {
        let separator = c == '.' || c == '-';
        let after_dot = clean.is_empty() || clean.ends_with('.');
        if c.is_ascii_alphanumeric() || (separator && !after_dot && !(c == '.' && clean.ends_with('-'))) {
            clean.push(c);
        }
    }
    clean.truncate(clean.trim_end_matches(['.', '-']).len());
    clean
}

/// Many ephemeral containers can run of one root.
fn with_suffix(name: &str) -> String {
    // Once: a container that reboots keeps its name.
    static SUFFIX: OnceLock<u64> = OnceLock::new();
    let suffix = SUFFIX.get_or_init(|| RandomState::new().build_hasher().finish());
    let most = configured::NAME_MAX - 17;
    let name = name.get(..most).unwrap_or(name).trim_end_matches(['.', '-']);
    format!("{name}-{suffix:016x}")
}

/// The path of the root itself, which was perhaps given through symlinks, once it looks like one.
pub(super) fn resolve(names: &Names, asked: &Asked, check_os_release: bool) -> Result<PathBuf, String> {
    let fault =
        |path: &Path, error: &io::Error| format!("Failed to resolve path {}: {error}", path.display());
    let template = asked.template.as_ref().filter(|_| !asked.ephemeral);
    let root = match (names.root.canonicalize(), template) {
        (Err(error), Some(_)) if error.kind() == io::ErrorKind::NotFound => {
            let parent = names.root.parent().unwrap_or(Path::new("/"));
            let parent = parent.canonicalize().map_err(|error| fault(parent, &error))?;
            parent.join(names.root.file_name().unwrap_or_default())
        }
        (resolved, _) => resolved.map_err(|error| fault(&names.root, &error))?,
    };
    if names.image {
        return Ok(root);
    }
    let forgets = asked.ephemeral || matches!(asked.volatile, Volatile::Yes | Volatile::State);
    if root == Path::new("/") && !forgets {
        return Err("Spawning container on root directory is not supported. Consider using --ephemeral, \
                    --volatile=yes or --volatile=state."
            .to_owned());
    }
    let tree = match template {
        Some(template) if !root.exists() => {
            template.canonicalize().map_err(|error| fault(template, &error))?
        }
        _ => root.clone(),
    };
    check_tree(&tree, asked, check_os_release)?;
    Ok(root)
}

/// systemd-nspawn takes no directory for a root that is none: who mistyped it would get files made in it.
fn check_tree(tree: &Path, asked: &Asked, check_os_release: bool) -> Result<(), String> {
    let new_root = match &asked.pivot_root {
        Some(pivot) => tree.join(pivot.new.strip_prefix("/").unwrap_or(&pivot.new)),
        None => tree.to_owned(),
    };
    if !new_root.is_dir() {
        return Err(format!("Failed to use {} as a root: it is not a directory", new_root.display()));
    }
    if asked.start != Start::Boot {
        return match fs::metadata(new_root.join("usr/")) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "Directory {} doesn't look like it has an OS tree (/usr/ directory is missing). Refusing.",
                tree.display()
            )),
        };
    }
    let inside = HostPaths::below(&new_root);
    let has = |file: &str| lookup(&inside, Path::new(file)).is_ok_and(|found| found.metadata.is_file());
    if !check_os_release || has("/etc/os-release") || has("/usr/lib/os-release") {
        return Ok(());
    }
    Err(format!(
        "Directory {} doesn't look like an OS root directory (os-release file is missing). Refusing.",
        new_root.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_what_a_hostname_may_have() {
        for (name, expected) in [
            ("web", "web"),
            ("my_web.1", "myweb.1"),
            ("..a..b-.c-", "a.b-c"),
            ("-a", "a"),
            ("ä", ""),
            (&"x".repeat(70), &"x".repeat(64)),
        ] {
            assert_eq!(clean(name), expected, "{name}");
        }
        assert_eq!(name_of(Path::new("/x/web.raw"), true).as_deref(), Ok("web"));
        assert_eq!(name_of(Path::new("/x/web.raw"), false).as_deref(), Ok("web.raw"));
        assert!(name_of(Path::new("/x/__"), false).is_err());
        let long = with_suffix(&"x".repeat(64));
        assert!(configured::check_name(&long).is_ok() && long.len() == 64, "{long}");
    }
}

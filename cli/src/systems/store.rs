//! Paths of the Nix store.

use std::path::{Path, PathBuf};

/// Where Nix keeps everything that is immutable.
pub(crate) const STORE: &str = "/nix/store";

/// The store path (`/nix/store/HASH-NAME`) that a path lies in, or is.
pub(crate) fn path_of(path: &Path) -> Option<PathBuf> {
    let object = path.strip_prefix(STORE).ok()?.iter().next()?;
    let name = object.to_str()?;
    // A hash is 160 bits in Nix's base 32, without e, o, t and u (nix's libutil, nix32).
    let base32 = |b: u8| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"eotu".contains(&b));
    let (hash, rest) = name.split_once('-')?;
    let valid = hash.len() == 32 && hash.bytes().all(base32) && !rest.is_empty();
    valid.then(|| Path::new(STORE).join(object))
}

/// Whether this is a store path, and not one within.
pub(crate) fn is_path(path: &Path) -> bool {
    path_of(path).is_some_and(|found| found.as_os_str() == path.as_os_str())
}

/// The name in a store path, without its hash.
pub(crate) fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split_once('-').map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_path_is_known_by_its_hash() {
        let system = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-25.11";
        assert!(is_path(Path::new(system)));
        assert_eq!(path_of(&Path::new(system).join("init")).as_deref(), Some(Path::new(system)));
        assert_eq!(name_of(Path::new(system)), Some("nixos-system-web-25.11"));
        for other in [
            "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x/init",
            "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-",
            "/nix/store/short-x",
            "/nix/store/.links",
            "/nix/store",
            "/nix/store/../../etc",
            "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x/",
            "/etc",
        ] {
            assert!(!is_path(Path::new(other)), "{other}");
        }
    }
}

//! What the child will do, complete before it exists: flat operations with descriptors in place of paths wherever
//! the parent could open them, and strings in one arena.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use super::files::Offer;
use crate::plan::MountPlan;
use crate::sys::inroot::Make;

/// A NUL-terminated string in a script's arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Str(u32);

/// A mount point inside the container's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Path relative to the root.
    pub(crate) path: Str,
    /// What to make when it is missing.
    pub(crate) make: Make,
    /// Whether symlinks are followed (within the root); the API file systems follow none.
    pub(crate) follow: bool,
}

/// A directory of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The staged tree it is in; the container's root when there is none.
    pub(crate) tree: Option<RawFd>,
    /// Path below that.
    pub(crate) path: Str,
    /// What to make when it is missing.
    pub(crate) make: Make,
}

/// The directories of an overlay.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// Those that are only read, the highest first.
    pub(crate) lower: Vec<Layer>,
    /// The one that is written to, and the kernel's beside it.
    pub(crate) upper: Option<[Layer; 2]>,
}

/// One operation. Paths are relative to the root, whose descriptor is the script's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Kill this process when the thread that created it ends.
    DieWithParent,
    /// Let nobody look into this process who is not privileged where nixrun is, until it executes its program.
    Undumpable,
    /// Own the files that we make as this user and group, with all our capabilities over others.
    FileOwner { id: u32 },
    /// Make the root of our copy of the mounts our own root: a caller in a chroot would leave its host's root behind
    /// as that of the namespace, which setns(2) leads to.
    LeaveChroot,
    /// Cut every mount of the host off from propagation, so that nothing below reaches it.
    PrivateTree,
    /// Attach a tree over the host's root, where it is only a source; it goes with the host's mounts at the pivot.
    Stage { tree: RawFd },
    /// Attach the root's detached tree and make it the working directory.
    AttachRoot,
    /// The same for an overlay, whose descriptor takes the root's number.
    OverlayRoot { overlay: u16 },
    /// Attach a tree that the parent prepared.
    Attach { tree: RawFd, target: Target },
    /// Mount a file system that belongs to the child's namespaces.
    NewFs { fstype: Str, attributes: u64, target: Target },
    /// The same for one that is only there to be copied from: over a directory of the host's tree, so that it goes
    /// with that tree. Unmounting it would wait for RCU once more.
    NewFsOutside { fstype: Str, attributes: u64, at: Str },
    /// Attach a copy of a mount or of a part of one: a bind mount. An absolute source is one of the host's tree.
    Bind { source: Str, recursive: bool, attributes: u64, target: Target },
    /// The same with a source below a tree, which may be full of symlinks; the mount point is of the source's kind.
    BindIn { tree: RawFd, source: Str, recursive: bool, attributes: u64, target: Target },
    /// Mount an overlay.
    Overlay { overlay: u16, attributes: u64, target: Target },
    /// Put an inode without permissions over what is there, of its kind.
    Mask { attributes: u64, target: Target },
    /// Change a mount's attributes or propagation.
    SetAttributes { path: Str, attributes: u64, propagation: u64, recursive: bool },
    /// A file of the host for the container, where that can be done.
    Offer(Offer),
    /// A directory, unless it is there.
    MakeDirectory { path: Str },
    /// Make a mount point that is missing.
    MakeTarget { target: Target },
    /// Unmount what is on top there.
    Unmount { path: Str },
    /// Remove a file.
    Remove { path: Str },
    /// Make the root `/` and drop the host's mounts, and the staged trees, which lie over them.
    Pivot { staged: u16 },
    /// Clone the container's first process into these namespaces, as a child of our own parent: it goes on behind the
    /// next `aside` operations, which are for us once it has done [`Op::Release`].
    Split { namespaces: u64, aside: usize },
    /// Clone a command of `exec` into a group and go on in it; the original stays and waits for it.
    Attend {
        group: RawFd,
        /// Where it says how the command ended, and the parent's copy.
        status: [RawFd; 2],
    },
    /// Let the process that cloned us go on.
    Release,
    /// End, with success.
    End,
    /// Wait until the parent has written the maps of our user namespace.
    AwaitIds,
    /// Be root of our user namespace, in no other group.
    BecomeRoot,
    /// Enter namespaces: of the process behind a pidfd, or the one behind a namespace's file.
    Join { fd: RawFd, namespaces: i32 },
    /// Set the UTS hostname.
    Hostname { name: Str },
    /// A session of our own, without a controlling terminal.
    NewSession,
    /// Make `/dev/console` standard input, output and error, and the controlling terminal unless a stub's program is
    /// to have it.
    Console { path: Str, control: bool },
    /// The same for a terminal that is open already.
    Terminal { fd: RawFd },
    /// A session keyring of our own instead of the administrator's.
    NewKeyring,
    /// Set a resource limit.
    Limit { resource: u32, soft: u64, hard: u64 },
    /// No supplementary groups.
    ClearGroups,
    /// umask 0022.
    Umask,
    /// Wait for the parent's GO.
    Await,
    /// Every signal to its default and unblocked: Rust ignores SIGPIPE, and ignored signals survive exec.
    DefaultSignals,
    /// Install the script's seccomp filter.
    Filter,
    /// Bounding set to this mask.
    Bounding { mask: u64 },
    /// Make a user's home where it is missing.
    Home { path: Str, uid: u32, gid: u32 },
    /// Become a user with the script's supplementary groups; `terminal` says that standard input, output and error are
    /// the container's own, and become the user's.
    SetUser { uid: u32, gid: u32, terminal: bool },
    /// Effective, permitted and inheritable set to `mask`, or to `ambient` for another user than root, and ambient
    /// set to `ambient`.
    Capabilities { mask: u64, ambient: u64 },
    /// What uname(2) says the machine is.
    Personality { domain: u64 },
    /// No privileges by exec.
    NoNewPrivileges,
    /// Change the working directory; where it need not be, what fails changes nothing.
    Chdir { path: Str, must: bool },
    /// Take these, all above 2, as standard input, output and error.
    Streams([RawFd; 3]),
    /// Close every descriptor from 3 up but the channel and the first ones, which the program inherits.
    CloseDescriptors { inherited: u32 },
    /// Fork: the stub stays PID 1, and the script goes on in PID 2.
    Stub(Stub),
    /// Execute the script's program.
    Exec,
}

/// What the stub that is PID 1 must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stub {
    /// Whether the program gets the console as its controlling terminal.
    pub(crate) terminal: bool,
    /// Where in memory our command line is, which the container is not to see.
    pub(crate) arguments: (u64, u64),
    /// Where our environment is.
    pub(crate) environment: (u64, u64),
    /// What is shown in its place, NULs included.
    pub(crate) shown: Bytes,
}

/// Bytes in a script's arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    at: u32,
    length: u32,
}

/// The program to execute.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// Paths to try in turn, as a shell does with `PATH`.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    envp: Vec<CString>,
    /// One for all candidates, or one for each.
    argv_pointers: Vec<Vec<*const libc::c_char>>,
    envp_pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers lead into the CStrings beside them, which nobody changes; the raw type alone keeps the
// compiler from seeing that.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// A program that is told the name it was given.
    pub(crate) fn new(candidates: Vec<CString>, argv: Vec<CString>, envp: Vec<CString>) -> Image {
        let argv_pointers = vec![pointers(argv.iter())];
        let envp_pointers = pointers(envp.iter());
        Image { candidates, argv, envp, argv_pointers, envp_pointers }
    }

    /// A program that is told, before its arguments, a name that goes with the path it was found at.
    pub(crate) fn named(
        candidates: Vec<(CString, CString)>,
        arguments: Vec<CString>,
        envp: Vec<CString>,
    ) -> Image {
        let (candidates, names): (Vec<_>, Vec<_>) = candidates.into_iter().unzip();
        let argv_pointers =
            names.iter().map(|name| pointers(std::iter::once(name).chain(&arguments))).collect();
        let envp_pointers = pointers(envp.iter());
        let argv = names.into_iter().chain(arguments).collect();
        Image { candidates, argv, envp, argv_pointers, envp_pointers }
    }

    pub(crate) fn candidates(&self) -> &[CString] {
        &self.candidates
    }

    /// The program's name as it was given, or all the places where it is looked for.
    pub(crate) fn program(&self) -> String {
        if self.argv_pointers.len() > 1 {
            let places: Vec<_> = self.candidates.iter().map(|path| path.to_string_lossy()).collect();
            return format!("one of {}", places.join(", "));
        }
        self.argv.first().map_or_else(String::new, |program| program.to_string_lossy().into_owned())
    }

    /// NULL-terminated array for execve of the candidate with this index.
    pub(crate) fn argv(&self, candidate: usize) -> *const *const libc::c_char {
        let argv = self.argv_pointers.get(candidate).or(self.argv_pointers.first());
        argv.map_or(std::ptr::null(), |argv| argv.as_ptr())
    }

    /// NULL-terminated array for execve.
    pub(crate) fn envp(&self) -> *const *const libc::c_char {
        debug_assert_eq!(self.envp.len() + 1, self.envp_pointers.len());
        self.envp_pointers.as_ptr()
    }
}

/// A NULL-terminated array for execve. A CString's bytes do not move when the vector that holds it does.
fn pointers<'a>(strings: impl Iterator<Item = &'a CString>) -> Vec<*const libc::c_char> {
    strings.map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// What an operation is for. Most are never put into words: that would be a good part of the start.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// In these words.
    Text(Cow<'static, str>),
    /// The mount of the plan with this index.
    Mount(usize),
}

impl From<&'static str> for Purpose {
    fn from(text: &'static str) -> Purpose {
        Purpose::Text(text.into())
    }
}

impl From<String> for Purpose {
    fn from(text: String) -> Purpose {
        Purpose::Text(text.into())
    }
}

/// Everything the child does.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// The operations, in order.
    pub(crate) ops: Vec<Op>,
    /// What each operation is for, in the plan's words; the parent's part of an error.
    purposes: Vec<Purpose>,
    /// Descriptor of the root's tree, for the operations that take paths.
    pub(crate) root: RawFd,
    /// The overlays that operations name by their place here.
    pub(crate) overlays: Vec<Overlay>,
    /// The seccomp filter.
    pub(crate) filter: Vec<libc::sock_filter>,
    /// The program.
    pub(crate) image: Image,
    /// Supplementary groups of the user that it runs as.
    pub(crate) groups: Vec<u32>,
    strings: Vec<u8>,
}

impl Script {
    /// Adds an operation and what it is for.
    pub(crate) fn push(&mut self, op: Op, purpose: impl Into<Purpose>) {
        self.ops.push(op);
        self.purposes.push(purpose.into());
    }

    /// What the operation is for; `mounts` are those of the plan that the script was made from.
    pub(crate) fn purpose(&self, op: u16, mounts: &[MountPlan]) -> String {
        match self.purposes.get(usize::from(op)) {
            Some(Purpose::Text(text)) => text.to_string(),
            Some(Purpose::Mount(index)) => {
                mounts.get(*index).map_or_else(|| "mount".to_owned(), |mount| format!("mount {mount}"))
            }
            None => "set the container up".to_owned(),
        }
    }

    /// How many trees are staged so far.
    pub(crate) fn staged(&self) -> u16 {
        self.ops.iter().filter(|op| matches!(op, Op::Stage { .. })).count() as u16
    }

    /// Adds an overlay's directories; its number.
    pub(crate) fn overlay(&mut self, overlay: Overlay) -> u16 {
        self.overlays.push(overlay);
        self.overlays.len() as u16 - 1
    }

    /// Puts a string into the arena.
    pub(crate) fn string(&mut self, string: &CStr) -> Str {
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(string.to_bytes_with_nul());
        Str(at)
    }

    /// Puts bytes into the arena.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Bytes {
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(bytes);
        Bytes { at, length: bytes.len() as u32 }
    }

    /// The bytes; none when they are none of this script's.
    pub(crate) fn bytes(&self, bytes: Bytes) -> &[u8] {
        let begin = bytes.at as usize;
        self.strings.get(begin..begin + bytes.length as usize).unwrap_or_default()
    }

    /// The string; empty when it is none of this script's.
    pub(crate) fn get(&self, string: Str) -> &CStr {
        self.strings
            .get(string.0 as usize..)
            .and_then(|bytes| CStr::from_bytes_until_nul(bytes).ok())
            .unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back() {
        let mut script = Script::default();
        let (a, b) = (script.string(c"proc"), script.string(c""));
        assert_eq!((script.get(a), script.get(b)), (c"proc", c""));
    }
}

//! What tests that launch containers share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    reason = "each test file uses a part; why a test was skipped"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use runtime::supervisor::Attached;
use runtime::{
    Cgroup, Console, ContainerConfig, Error, HostFacts, HostPaths, Network, Outcome, Payload, Plan, Prepared,
    Supervisor,
};

/// Cargo's directory for this.
pub const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
/// Where Debian's busybox-static is.
pub const BUSYBOX: &str = "/bin/busybox";

/// A copy that was closed before any test clones: a child that still had it open for writing would make executing
/// it fail with ETXTBSY.
pub static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let (copy, own) = (Path::new(TEMPORARY).join("busybox"), std::process::id().to_string());
    let temporary = copy.with_extension(own);
    fs::copy(BUSYBOX, &temporary).unwrap();
    fs::rename(&temporary, &copy).unwrap();
    copy
});

/// A root with busybox in it; `None`, with the reason, where there is no busybox or no root.
pub fn root() -> Option<(tempfile::TempDir, PathBuf)> {
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if !Path::new(BUSYBOX).exists() {
        "busybox-static"
    } else {
        let dir = tempfile::tempdir_in(TEMPORARY).unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        // Another test's process may be putting its own copy in this one's place: a file without a name cannot get one.
        let link = || fs::hard_link(&*PROGRAM, root.join("bin/busybox"));
        (0..100).find_map(|_| link().ok()).unwrap_or_else(|| link().unwrap());
        symlink("busybox", root.join("bin/sh")).unwrap();
        own_namespaces();
        return Some((dir, root));
    };
    assert!(std::env::var_os("NIXRUN_MUST_WORK").is_none(), "this test needs {missing}");
    println!("skipped: needs {missing}");
    None
}

/// Puts this thread into namespaces of its own, so that nothing here reaches the machine.
pub fn own_namespaces() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

pub fn config(root: &Path, name: &str, script: &str) -> ContainerConfig {
    let argv = ["/bin/busybox", "sh", "-c", script].map(Into::into).to_vec();
    let name = format!("test-{name}-{}", std::process::id());
    let mut config = ContainerConfig::new(name, root, Payload::new(argv));
    config.network = Network::Private;
    config.console = Console::Pipe;
    config
}

pub fn start(config: &ContainerConfig) -> Result<Supervisor, Error> {
    let plan = Plan::new(config, &HostFacts::probe_for(&HostPaths::default(), config)?)?;
    let group = Cgroup::create(&plan.cgroup)?;
    Prepared::new(plan)?.launch(group)?.resume()
}

pub const DETACHED: Attached<'_> =
    Attached { signals: None, output: None, input: None, grace: Duration::from_secs(20) };

pub fn run(config: &ContainerConfig) -> Outcome {
    let end = start(config).unwrap().run(&DETACHED, |_| {}).unwrap();
    assert!(end.cleanup.is_empty(), "{:?}", end.cleanup);
    end.outcome
}

/// What a script printed to /out before it ended with status 0.
#[track_caller]
pub fn printed(root: &Path, name: &str, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> String {
    let mut config = config(root, name, &format!("exec > /out 2>&1; {script}"));
    change(&mut config);
    let outcome = run(&config);
    let out = fs::read_to_string(root.join("out")).unwrap_or_default();
    assert_eq!(outcome, Outcome::Exited(0), "{out}");
    out
}

/// Runs a script in the container; what it wrote, and how it ended.
pub fn output(config: &ContainerConfig) -> (String, Outcome) {
    let mut config = config.clone();
    config.console = Console::ReadOnly;
    let file = tempfile::tempfile_in(TEMPORARY).unwrap();
    let attached = Attached { output: Some(std::os::fd::AsFd::as_fd(&file)), ..DETACHED };
    let end = start(&config).unwrap().run(&attached, |_| {}).unwrap();
    assert!(end.cleanup.is_empty(), "{:?}", end.cleanup);
    let mut text = String::new();
    let mut file = file;
    std::io::Seek::rewind(&mut file).unwrap();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    (text.replace('\r', ""), end.outcome)
}

/// A shell script's result: its output when it succeeds.
#[track_caller]
pub fn ok(config: &ContainerConfig) -> String {
    let (text, outcome) = output(config);
    assert_eq!(outcome, Outcome::Exited(0), "{text}");
    text
}

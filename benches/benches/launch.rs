//! A container's whole life through the library, around a program that only exits. Needs root; in mount and network
//! namespaces that stand for the host.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "says why it measures nothing")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use runtime::supervisor::Attached;
use runtime::{
    Cgroup, Console, ContainerConfig, HostFacts, HostPaths, Network, Outcome, Payload, Plan, Prepared,
};

fn launch(criterion: &mut Criterion) {
    if let Err(errno) = own_namespaces() {
        eprintln!("launch: not measured: cannot make namespaces: {errno} (this needs root)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("exit");
    fs::write(&program, exit_program()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let paths = HostPaths::default();
    let mut group = criterion.benchmark_group("launch");
    for (name, network) in [("host network", Network::Host), ("own network namespace", Network::Private)] {
        let config = config(directory.path(), network);
        group.bench_function(name, |bencher| bencher.iter(|| run(&config, &paths)));
    }
}

fn own_namespaces() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)
}

fn config(root: &Path, network: Network) -> ContainerConfig {
    let payload = Payload::new(vec!["/exit".into()]);
    let mut config = ContainerConfig::new(format!("bench-{}", std::process::id()), root, payload);
    config.network = network;
    config.console = Console::Pipe;
    config
}

fn run(config: &ContainerConfig, paths: &HostPaths) {
    let plan = Plan::new(config, &HostFacts::probe_for(paths, config).unwrap()).unwrap();
    let prepared = Prepared::new(plan).unwrap();
    let group = Cgroup::create(&prepared.plan().cgroup).unwrap();
    let supervisor = prepared.launch(group).unwrap().resume().unwrap();
    let attached = Attached { signals: None, output: None, input: None, grace: Duration::from_secs(10) };
    let end = supervisor.run(&attached, |_| {}).unwrap();
    assert_eq!(end.outcome, Outcome::Exited(0));
    assert!(end.cleanup.is_empty(), "{:?}", end.cleanup);
}

/// The smallest static program: an ELF header, one program header, `exit_group(0)`.
fn exit_program() -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const ADDRESS: u64 = 0x40_0000;
    let (machine, code): (u16, &[u8]) = if cfg!(target_arch = "aarch64") {
        // mov x0, #0; mov x8, #94; svc #0
        (183, &[0x00, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4])
    } else {
        // xor edi, edi; mov eax, 231; syscall
        (62, &[0x31, 0xff, 0xb8, 0xe7, 0x00, 0x00, 0x00, 0x0f, 0x05])
    };
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    // An executable file of the machine, version 1; its entry; where the program header is; no sections.
    put(&[2, 0]);
    put(&machine.to_le_bytes());
    put(&1u32.to_le_bytes());
    put(&(ADDRESS + HEADERS).to_le_bytes());
    put(&64u64.to_le_bytes());
    put(&[0; 12]);
    for half in [64u16, 56, 1, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    // Load all of it, to be read and executed.
    put(&1u32.to_le_bytes());
    put(&5u32.to_le_bytes());
    let size = HEADERS + code.len() as u64;
    for word in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(code);
    elf
}

criterion_group!(benches, launch);
criterion_main!(benches);

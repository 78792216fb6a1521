//! `.nspawn` files.

use super::*;

#[test]
fn every_key_arrives() {
    let place = Place::new();
    place.write(
        "etc/systemd/nspawn/web.nspawn",
        r#"[Exec]
Boot=no
Parameters=bash /entry.sh "foo bar" 'bar baz'
Environment=A=1 "B=two words"
User=root
WorkingDirectory=/tmp
Capability=CAP_SYS_TIME CAP_BPF
AmbientCapability=CAP_SYS_TIME
DropCapability=CAP_CHOWN
NoNewPrivileges=yes
MachineID=f28f129b51874b1280a89421ec4b4ad4
PrivateUsers=131072:65536
NotifyReady=no
SystemCallFilter=@basic-io @file-system
SystemCallFilter=~ptrace
LimitNOFILE=1024:2048
LimitRTPRIO=8:16
OOMScoreAdjust=32
CPUAffinity=0,1
CPUAffinity=3
Hostname=nspawn-settings
ResolvConf=copy-host
Timezone=delete
LinkJournal=no
SuppressSync=yes
KillSignal=SIGUSR1
Personality=x86-64
Ephemeral=no

[Files]
ReadOnly=no
Volatile=no
TemporaryFileSystem=/tmpfs:size=10%
Bind=/foo:/bar
BindReadOnly=/foo
Inaccessible=/baz
Overlay=/ro1:/rw:/dst
PrivateUsersOwnership=map

[Network]
Private=yes
VirtualEthernet=yes
VirtualEthernetExtra=my-fancy-veth1
VirtualEthernetExtra=fancyVeth2:my_fancy_veth2
Interface=sd-a sd-b:b
MACVLAN=sd-c
IPVLAN=sd-d:d
Zone=sd-zone0
Port=tcp:60
Port=udp:60:61
"#,
    );
    let meaning = place.means("-D web");
    assert_eq!(meaning.request.notes, [""; 0]);
    let container = meaning.request.container;
    assert_eq!(container.payload.argv, ["bash", "/entry.sh", "foo bar", "bar baz"]);
    assert_eq!(container.payload.program, Program::Command);
    assert_eq!(container.payload.env, [("A".into(), "1".into()), ("B".into(), "two words".into())]);
    assert_eq!(container.payload.user.as_deref(), Some("root"));
    assert_eq!(container.payload.cwd.as_deref(), Some(Path::new("/tmp")));
    assert_eq!(container.add_capabilities.to_string(), "CAP_SYS_TIME,CAP_BPF");
    assert_eq!(container.drop_capabilities.to_string(), "CAP_CHOWN");
    assert_eq!(container.users, UserNamespace::Range { base: 131_072, length: 65536 });
    assert_eq!(container.ownership, Ownership::Map);
    let security = container.security;
    assert!(security.no_new_privileges && security.suppress_sync);
    assert_eq!(security.ambient_capabilities.to_string(), "CAP_SYS_TIME");
    assert_eq!(security.system_calls.allow, ["@basic-io", "@file-system"]);
    assert_eq!(security.system_calls.deny, ["ptrace"]);
    assert_eq!(security.personality, Some(Personality::Native));
    assert_eq!(container.uuid.map(|uuid| uuid[0]), Some(0xf2));
    let limits: Vec<(&str, u64, u64)> =
        container.execution.limits.iter().map(|l| (l.name.as_str(), l.soft, l.hard)).collect();
    assert_eq!(limits, [("NOFILE", 1024, 2048), ("RTPRIO", 8, 16)]);
    assert_eq!(container.execution.oom_score_adjust, Some(32));
    assert_eq!(container.execution.cpu_affinity, Some(vec![0, 1, 3]));
    assert_eq!(container.hostname.as_deref(), Some("nspawn-settings"));
    assert_eq!(container.integration.resolv_conf, ResolvConf::CopyHost);
    assert_eq!(container.integration.timezone, Timezone::Delete);
    assert_eq!(container.integration.journal.mode, JournalLink::No);
    assert_eq!(container.stop_signal, libc::SIGUSR1);
    assert_eq!(container.mounts.len(), 5);
    let network = meaning.request.network.unwrap();
    let veth = network.veth.unwrap();
    assert_eq!((veth.bridge.as_deref(), veth.make_bridge), (Some("vz-sd-zone0"), true));
    assert_eq!(network.extra_veths[1].container_link, "my_fancy_veth2");
    assert_eq!(network.interfaces[1].container_link.as_deref(), Some("b"));
    assert_eq!((network.macvlans.len(), network.ipvlans.len(), network.forwards.len()), (1, 1, 2));
}

#[test]
fn the_command_line_wins_unless_told_otherwise() {
    let place = Place::new();
    let file = "[Exec]\nHostname=file\nLimitCORE=1\nLimitCPU=1\nParameters=b\n[Files]\nBind=/b\n";
    place.write("run/systemd/nspawn/web.nspawn", file);
    let line = "-D web --hostname=line --rlimit=CORE=2 --bind=/a";
    let shown = |mode: &str| {
        let words: Vec<&str> = line.split(' ').chain([mode, "a"]).filter(|w| !w.is_empty()).collect();
        let container = place.read(&words, &[]).unwrap().request.container;
        let limits: Vec<u64> = container.execution.limits.iter().map(|limit| limit.soft).collect();
        let target = container.mounts[0].target().display().to_string();
        (container.hostname.unwrap(), limits, target, container.payload.argv[0].clone())
    };
    let line_wins = ("line".to_owned(), vec![2, 1], "/a".to_owned(), "a".into());
    let file_wins = ("file".to_owned(), vec![1, 1], "/b".to_owned(), "b".into());
    let unread = ("line".to_owned(), vec![2], "/a".to_owned(), "a".into());
    assert_eq!(shown(""), line_wins);
    assert_eq!(shown("--settings=yes"), line_wins);
    assert_eq!(shown("--settings=trusted"), line_wins);
    assert_eq!(shown("--settings=override"), file_wins);
    assert_eq!(shown("--settings=no"), unread);
}

#[test]
fn a_file_beside_the_image_may_do_little() {
    let place = Place::new();
    let file = "[Exec]\nBoot=yes\nCapability=all\nSystemCallFilter=bpf\nDropCapability=CAP_CHOWN\n\
                    [Files]\nBind=/etc\nReadOnly=yes\n[Network]\nVirtualEthernet=yes\n";
    place.write("web.nspawn", file);
    let Meaning { request, .. } = place.means("-D web");
    let container = request.container;
    assert!(container.root.read_only && container.payload.program == Program::Init);
    assert!(container.mounts.is_empty() && container.add_capabilities.is_empty());
    assert!(container.security.system_calls.allow.is_empty() && request.network.is_none());
    assert_eq!(container.drop_capabilities.to_string(), "CAP_CHOWN");
    let place_of = |line: usize| format!("web.nspawn:{line}: Ignoring ");
    let keys = [(3, "Capability="), (4, "SystemCallFilter="), (7, "Bind="), (10, "VirtualEthernet=")];
    assert_eq!(request.notes.len(), keys.len(), "{:?}", request.notes);
    for (note, (line, key)) in request.notes.iter().zip(keys) {
        assert!(note.contains(&(place_of(line) + key)), "{note}");
    }
    let Meaning { request, .. } = place.means("-D web --settings=trusted");
    assert!(request.notes.is_empty() && request.container.mounts.len() == 1 && request.network.is_some());
    // The administrator's file is the one that counts.
    place.write("etc/systemd/nspawn/web.nspawn", "[Files]\nBind=/usr\n");
    let Meaning { request, .. } = place.means("-D web");
    assert!(!request.container.root.read_only && request.container.mounts.len() == 1);
}

#[test]
fn the_file_goes_by_the_name_of_the_machine() {
    let place = Place::new();
    place.write("etc/systemd/nspawn/web.nspawn", "[Exec]\nUser=found\n");
    let user = |line: &str| place.means(line).request.container.payload.user;
    assert_eq!(user("-D web true").as_deref(), Some("found"));
    assert_eq!(user("-xD web true").as_deref(), Some("found"));
    assert_eq!(user("-xD web -M other true"), None);
}

#[test]
fn what_is_wrong_in_a_file_is_shown_with_its_line() {
    let place = Place::new();
    let file = "[Exec]\nBoot=perhaps\nNope=1\nX-Mine=1\nKillSignal=help\nLimitCPU=x\nBoot=yes\nProcessTwo=yes\n\
                    [Files]\nBind=a\n[Nope]\nA=1\n";
    place.write("etc/systemd/nspawn/web.nspawn", file);
    let notes = place.means("-D web").request.notes;
    for (note, words) in notes.iter().zip([
        "web.nspawn:2: Boot= is ignored: ",
        "web.nspawn:3: Unknown key 'Nope' in section [Exec], ignoring.",
        "web.nspawn:5: KillSignal=help is ignored",
        "web.nspawn:6: LimitCPU= is ignored: ",
        "web.nspawn:8: ProcessTwo= is ignored: Conflicting",
        "web.nspawn:10: Bind= is ignored: ",
        "web.nspawn:11: Unknown section 'Nope'. Ignoring.",
    ]) {
        assert!(note.contains(words), "{note:?}: {words}");
    }
    assert_eq!(notes.len(), 7, "{notes:?}");
    place.write("etc/systemd/nspawn/web.nspawn", "[Exec\n");
    assert!(place.refuses("-D web").contains("web.nspawn:1: Invalid section header"));
    place.write("etc/systemd/nspawn/web.nspawn", "[Files]\nBindUser=me\n");
    assert!(place.refuses("-D web").contains("web.nspawn:2: BindUser= cannot be used"));
}

//! systemd-nspawn's command lines, and what is asked of runtime and netsetup for them.

mod settings;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use netsetup::{ForwardTo, Nat};
use nixrun::systemd_nspawn::{self, Meaning, Stop, Surroundings};
use runtime::{
    BindIds, BindSource, Console, HostPaths, JournalLink, LinkJournal, Mount, Network, Ownership,
    Personality, Program, ResolvConf, Timezone, UserNamespace, Volatile,
};
use tempfile::TempDir;

/// A host with a root directory that systemd could boot in.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for path in ["web/usr/lib", "web/etc", "etc/systemd/nspawn", "run/systemd/nspawn", "var/lib/machines"]
        {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("web/etc/os-release"), "").unwrap();
        Place { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// What a command line means in this directory.
    fn read(&self, words: &[&str], env: &[(&str, &str)]) -> Result<Meaning, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let here = self.path("");
        let asked = systemd_nspawn::parse("systemd-nspawn", &words, &here).map_err(|stop| match stop {
            Stop::Print(text) => format!("printed {text}"),
            Stop::Fault(sentence) => sentence,
        })?;
        let paths = HostPaths::below(&here).with_proc(here.join("proc"));
        let variable =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, v)| OsString::from(v));
        let around =
            Surroundings { here: &here, variable: &variable, paths: &paths, terminal: false, listen_fds: 0 };
        systemd_nspawn::meaning(asked, around)
    }

    #[track_caller]
    fn means(&self, line: &str) -> Meaning {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.read(&words, &[]).unwrap_or_else(|sentence| panic!("{line}: {sentence}"))
    }

    #[track_caller]
    fn refuses(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match self.read(&words, &[]) {
            Ok(meaning) => panic!("{line} was taken: {meaning:?}"),
            Err(sentence) => sentence,
        }
    }
}

fn bind(source: &str, target: &str, read_only: bool, ids: BindIds) -> Mount {
    Mount::Bind {
        source: BindSource::Host(source.into()),
        target: target.into(),
        read_only,
        recursive: true,
        ids,
    }
}

/// The call of NixOS's `container@.service`, with flags of its own word-split into it, as its script makes it.
#[test]
fn the_call_of_a_nixos_container() {
    let place = Place::new();
    let root = place.path("web");
    let root = root.to_str().unwrap();
    let extra = "--bind-ro=/srv/data:/data --system-call-filter=add_key --bind=/dev/fuse";
    let line = format!(
        "--keep-unit -M web -D {root} --private-network --private-users=pick --network-veth --port=tcp:8080:80 \
         --port=udp:53:53 --network-bridge=br0 --network-veth-extra=veth1 --network-interface=eth1 \
         --network-macvlan=eth2 --personality=x86 --notify-ready=yes --kill-signal=SIGRTMIN+3 \
         --bind-ro=/nix/store:/nix/store:idmap --bind-ro=/nix/var/nix/db:/nix/var/nix/db:idmap \
         --bind-ro=/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket:idmap \
         --bind=/nix/var/nix/profiles/per-container/web:/nix/var/nix/profiles:idmap \
         --bind=/nix/var/nix/gcroots/per-container/web:/nix/var/nix/gcroots:idmap --link-journal=try-guest \
         --setenv PRIVATE_NETWORK=1 --setenv HOST_ADDRESS=10.0.0.1 --setenv LOCAL_ADDRESS=10.0.0.2 \
         --setenv HOST_BRIDGE= --setenv PATH=/bin --capability=CAP_SYS_TIME,CAP_NET_RAW --tmpfs=/var:size=1G {extra} \
         /nix/store/x-container-init /nix/var/nix/profiles/system/init"
    );
    let Meaning { request, root: shown, quiet, keep_unit } = place.means(&line);
    assert_eq!((shown.to_str(), quiet, keep_unit), (Some(root), false, true));
    assert!(request.unit.keep_unit && request.unit.register && request.notes.is_empty(), "{request:?}");
    let container = request.container;
    assert_eq!((container.name.as_str(), container.rootfs.to_str()), ("web", Some(root)));
    assert_eq!(container.payload.program, Program::Command);
    assert_eq!(container.payload.argv, ["/nix/store/x-container-init", "/nix/var/nix/profiles/system/init"]);
    let env: Vec<(&str, &str)> = container
        .payload
        .env
        .iter()
        .map(|(key, value)| (key.to_str().unwrap(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        env,
        [
            ("PRIVATE_NETWORK", "1"),
            ("HOST_ADDRESS", "10.0.0.1"),
            ("LOCAL_ADDRESS", "10.0.0.2"),
            ("HOST_BRIDGE", ""),
            ("PATH", "/bin")
        ]
    );
    assert_eq!((container.users, container.ownership), (UserNamespace::Pick, Ownership::Auto));
    assert_eq!(container.security.personality, Some(Personality::Compat));
    assert_eq!(container.security.system_calls.allow, ["add_key"]);
    assert_eq!((container.stop_signal, container.notify_ready, container.notify_socket), (37, true, true));
    assert_eq!(container.console, Console::ReadOnly);
    let guest = LinkJournal { mode: JournalLink::Guest, optional: true };
    assert_eq!(container.integration.journal, guest);
    assert_eq!(container.integration.resolv_conf, ResolvConf::Auto);
    assert_eq!(container.add_capabilities.to_string(), "CAP_NET_RAW,CAP_SYS_TIME");
    let map = BindIds::Map;
    assert_eq!(
        container.mounts,
        [
            bind("/srv/data", "/data", true, BindIds::Auto),
            bind("/dev/fuse", "/dev/fuse", false, BindIds::Auto),
            bind("/nix/store", "/nix/store", true, map),
            bind("/nix/var/nix/daemon-socket", "/nix/var/nix/daemon-socket", true, map),
            bind("/nix/var/nix/db", "/nix/var/nix/db", true, map),
            bind("/nix/var/nix/gcroots/per-container/web", "/nix/var/nix/gcroots", false, map),
            bind("/nix/var/nix/profiles/per-container/web", "/nix/var/nix/profiles", false, map),
            Mount::Tmpfs { target: "/var".into(), options: "size=1G".into() },
        ]
    );
    assert_eq!(container.network, Network::Private);
    let network = request.network.unwrap();
    let veth = network.veth.unwrap();
    assert_eq!(
        (veth.container_link.as_str(), veth.bridge.as_deref(), veth.up),
        ("host0", Some("br0"), false)
    );
    assert_eq!((veth.host_address, veth.local_address), (None, None));
    assert_eq!((network.nat, network.forward_to, network.forwards.len()), (Nat::No, ForwardTo::Current, 2));
    assert_eq!(network.extra_veths[0].container_link, "veth1");
    assert_eq!(network.interfaces[0].host_link, "eth1");
    assert_eq!((network.macvlans[0].parent.as_str(), &network.macvlans[0].container_link), ("eth2", &None));
}

#[test]
fn an_init_gets_what_only_an_init_gets() {
    let place = Place::new();
    let container = place.means("-bD web --user= -- --log-level=debug x").request.container;
    assert_eq!((container.payload.program, container.stop_signal), (Program::Init, 37));
    assert_eq!(container.payload.argv, ["--log-level=debug", "x"]);
    assert_eq!(container.payload.user, None);
    let container = place.means("-D web").request.container;
    assert_eq!((container.payload.program, container.payload.argv.len()), (Program::Shell, 0));
    // Nothing was said about how to stop it: it is ended.
    assert_eq!(container.stop_signal, libc::SIGKILL);
    let container = place.means("-aD web -u nobody --chdir=/srv true").request.container;
    assert!(container.payload.as_pid2 && container.payload.user.as_deref() == Some("nobody"));
    assert_eq!(container.payload.cwd.as_deref(), Some(Path::new("/srv")));
}

#[test]
fn root_and_name_are_found() {
    let place = Place::new();
    let is = |line: &str, name: &str, root: &str, image: bool| {
        let container = place.means(line).request.container;
        assert_eq!((container.name.as_str(), &container.rootfs), (name, &place.path(root)), "{line}");
        assert_eq!(container.root.image, image, "{line}");
    };
    is("-D web true", "web", "web", false);
    is("-D web -M other true", "other", "web", false);
    is("--directory=web/../web/ true", "web", "web", false);
    fs::create_dir_all(place.path("var/lib/machines/m_1/usr")).unwrap();
    is("-D var/lib/machines/m_1 true", "m1", "var/lib/machines/m_1", false);
    fs::create_dir_all(place.path("var/lib/machines/mail/usr")).unwrap();
    is("-M mail true", "mail", "var/lib/machines/mail", false);
    place.write("var/lib/machines/disk.raw", "");
    is("-M disk true", "disk", "var/lib/machines/disk.raw", true);
    is("-i var/lib/machines/disk.raw true", "disk", "var/lib/machines/disk.raw", true);
    assert!(place.refuses("-M nobody true").contains("No image for machine 'nobody'"));
    let ephemeral = place.means("-xD web true").request.container;
    assert!(ephemeral.name.starts_with("web-") && ephemeral.name.len() == 20, "{}", ephemeral.name);
    assert!(ephemeral.root.ephemeral);
    assert_eq!(place.means("-xD web -M web true").request.container.name, "web");
    let from_template = place.means("--template=web -D new true").request.container;
    assert_eq!(from_template.rootfs, place.path("new"));
    assert_eq!(from_template.root.template, Some(place.path("web")));
}

#[test]
fn a_directory_that_is_no_root_is_refused() {
    let place = Place::new();
    fs::create_dir_all(place.path("empty")).unwrap();
    assert!(place.refuses("-D empty true").contains("(/usr/ directory is missing). Refusing."));
    assert!(place.refuses("-bD empty").contains("(os-release file is missing). Refusing."));
    let unchecked = place.read(&["-bD", "empty"], &[("SYSTEMD_NSPAWN_CHECK_OS_RELEASE", "0")]);
    assert!(unchecked.is_ok(), "{unchecked:?}");
    assert!(place.refuses("-D nowhere true").starts_with("Failed to resolve path"));
    assert!(place.refuses("-D / true").starts_with("Spawning container on root directory is not supported."));
    assert!(place.means("-D / --volatile true").request.container.root.volatile == Volatile::Yes);
}

#[test]
fn what_cannot_stand_together_is_refused() {
    let place = Place::new();
    for (line, words) in [
        ("-D web -a -b", "--boot and --as-pid2 may not be combined."),
        ("-D web -i web", "--directory= and --image= may not be combined."),
        ("--template=web -i web", "--template= and --image= may not be combined."),
        ("--template=web", "--template= needs --directory= or --machine=."),
        ("-x --template=web -D new", "--ephemeral and --template= may not be combined."),
        ("-xD web --link-journal=host", "--ephemeral and --link-journal={host,guest} may not be combined."),
        ("-D web --network-namespace-path=/x -n", "cannot be combined with other network options"),
        ("-D web --network-namespace-path=/x --network-zone=z", "cannot be combined with other network"),
        ("-D web --network-bridge=a --network-zone=b", "--network-bridge= and --network-zone= may not"),
        ("-D web -p 80", "Cannot use --port= without private networking."),
        ("-D web --ambient-capability=CAP_BPF", "not fully covered by Capability= setting."),
        ("-bD web --ambient-capability=CAP_CHOWN", "not useful for boot mode."),
        ("-D web --read-only --private-users-chown", "--read-only and --private-users-ownership=chown"),
        ("-D web -U --bind=/x:/", "custom root mounts"),
    ] {
        let sentence = place.refuses(line);
        assert!(sentence.contains(words), "{line}: {sentence}");
    }
    // A network that is joined has the loopback link brought up, and nothing made in it, only where it is to be private.
    assert!(place.means("-D web --network-namespace-path=/x true").request.network.is_none());
    let joined = place.means("-D web --network-namespace-path=/x --private-network true").request.network;
    assert_eq!(
        joined,
        Some(netsetup::NetworkConfig { nat: netsetup::Nat::No, ..netsetup::NetworkConfig::new("web") })
    );
    assert!(place.means("-xD web -j true").request.container.root.ephemeral);
}

#[test]
fn the_environment_is_heard() {
    let place = Place::new();
    let env = [
        ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes"),
        ("SYSTEMD_NSPAWN_NETWORK_MAC", "02:00:00:00:00:01"),
        ("SYSTEMD_NSPAWN_CONTAINER_SERVICE", "mine"),
        ("SYSTEMD_SUPPRESS_SYNC", "1"),
        ("A", "b"),
    ];
    let request = place.read(&["-nD", "web", "-E", "A", "-E", "UNSET", "true"], &env).unwrap().request;
    assert_eq!(request.container.payload.env, [("A".into(), "b".into()), ("UNSET".into(), "".into())]);
    assert_eq!(request.container.kernel_view.writable, runtime::ApiWritable::Yes);
    assert!(request.container.manager == "mine" && request.container.security.suppress_sync);
    assert_eq!(request.network.unwrap().veth.unwrap().container_mac, Some([2, 0, 0, 0, 0, 1]));
    let share = [("SYSTEMD_NSPAWN_SHARE_NS_PID", "1")];
    let sentence = place.read(&["-bD", "web"], &share).unwrap_err();
    assert_eq!(sentence, "--boot cannot be used without namespacing.");
    assert!(!place.read(&["-D", "web", "true"], &share).unwrap().request.unit.register);
}

#[test]
fn capabilities_follow_users_and_network() {
    let place = Place::new();
    let dropped = |line: &str| place.means(line).request.container.drop_capabilities.to_string();
    assert_eq!(dropped("-D web true"), "none");
    assert_eq!(dropped("-UD web true"), "CAP_NET_BIND_SERVICE");
    assert_eq!(dropped("-D web --private-users=identity true"), "none");
    assert_eq!(dropped("-UD web --private-network --drop-capability=chown true"), "CAP_CHOWN");
    assert_eq!(dropped("-D web --network-namespace-path=/x true"), "CAP_NET_ADMIN");
    assert_eq!(dropped("-D web --network-namespace-path=/x --capability=CAP_NET_ADMIN true"), "none");
}

#[test]
fn credentials_come_from_values_files_and_ours() {
    let place = Place::new();
    fs::create_dir(place.path("ours")).unwrap();
    place.write("ours/b", "from ours");
    place.write("file", "from a file");
    let file = format!("--load-credential=c:{}", place.path("file").display());
    let words = ["-D", "web", "--set-credential=a:x\\ny", "--load-credential=d:b", &file, "true"];
    let ours = place.path("ours");
    let env = [("CREDENTIALS_DIRECTORY", ours.to_str().unwrap())];
    let request = place.read(&words, &env).unwrap().request;
    let all: Vec<(&str, &[u8])> = request
        .container
        .integration
        .credentials
        .iter()
        .map(|one| (one.id.as_str(), one.value.as_slice()))
        .collect();
    assert_eq!(all, [("a", &b"x\ny"[..]), ("d", b"from ours"), ("c", b"from a file")]);
    assert!(place.read(&words, &[]).unwrap_err().contains("no credentials passed at all"));
    assert!(place.refuses("-D web --load-credential=a:/nowhere true").contains("Failed to read credential"));
    place.write("big", &"x".repeat((1 << 20) + 1));
    let big = format!("-D web --load-credential=a:{} true", place.path("big").display());
    assert!(place.refuses(&big).contains("too large"));
}

#[test]
fn properties_and_slice_are_for_a_scope() {
    let place = Place::new();
    let unit = place.means("-D web -S my -S tenant --property=MemoryMax=1G true").request.unit;
    assert_eq!((unit.slice.as_deref(), unit.properties.len()), (Some("tenant.slice"), 1));
    let kept = place.means("-D web --keep-unit --slice=a --register=no true").request;
    assert!(kept.notes.len() == 1 && kept.unit.slice.is_none() && !kept.unit.register);
    assert!(place.refuses("-D web --property=Nope=1 true").contains("Nope"));
}

#[test]
fn a_session_is_no_unit_to_keep() {
    let place = Place::new();
    fs::create_dir_all(place.path("proc/self")).unwrap();
    let line = "-D web --keep-unit true";
    for (group, session) in [
        ("0::/user.slice/user-1000.slice/session-2.scope", true),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", true),
        ("0::/machine.slice/container@web.service", false),
        ("0::/user.slice/user-name.slice/x", false),
    ] {
        place.write("proc/self/cgroup", group);
        if session {
            assert!(
                place.refuses(line).contains("may not be used when invoked from a user session"),
                "{group}"
            );
            place.means("-D web --keep-unit --register=no true");
        } else {
            place.means(line);
        }
    }
}

#[test]
fn what_nixrun_does_not_do_is_refused_by_name() {
    let place = Place::new();
    for option in [
        "--oci-bundle=/x",
        "--image-policy=*",
        "--root-hash=00000000000000000000000000000000",
        "--root-hash-sig=/x",
        "--verity-data=/x",
        "--selinux-context=a",
        "--selinux-apifs-context=a",
        "--bind-user=me",
        "--background=41",
    ] {
        let sentence = place.refuses(&format!("-D web {option} true"));
        let name = option.split('=').next().unwrap();
        assert!(sentence.contains(name) && sentence.contains("nixrun"), "{option}: {sentence}");
    }
    assert!(place.read(&["-D", "web", "--background=", "true"], &[]).is_ok());
}

//! What a container's processes are held to, seen from inside.

mod common;

use caps::Capability;
use common::{printed, root, start};
use runtime::{CapSet, ErrorKind, Personality};

const STATUS: &str = "/bin/busybox grep -E '^(Cap|NoNewPrivs)' /proc/self/status";

fn line<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
}

#[test]
fn ambient_capabilities_and_no_new_privileges() {
    let Some((_dir, root)) = root() else { return };
    let plain = printed(&root, "plain", STATUS, |_| {});
    assert_eq!((line(&plain, "CapAmb:"), line(&plain, "NoNewPrivs:")), ("0000000000000000", "0"));
    let ambient = CapSet::of(&[Capability::CAP_NET_RAW, Capability::CAP_CHOWN]);
    let found = printed(&root, "ambient", STATUS, |config| {
        config.security.ambient_capabilities = ambient;
        config.security.no_new_privileges = true;
    });
    assert_eq!(u64::from_str_radix(line(&found, "CapAmb:"), 16).unwrap(), ambient.bits());
    assert_eq!(line(&found, "NoNewPrivs:"), "1");
    for set in ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:"] {
        assert_eq!(line(&found, set), line(&plain, set));
    }
}

#[test]
fn the_filter_is_changed_by_name_and_a_wrong_name_starts_nothing() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox; $b mkdir /tmp/d; $b mount -t tmpfs t /tmp/d 2>/dev/null && echo mount
        $b chroot / $b true 2>/dev/null && echo chroot; $b hostname changed 2>/dev/null && echo hostname; echo end";
    assert_eq!(printed(&root, "unfiltered", script, |_| {}), "mount\nchroot\nhostname\nend\n");
    let out = printed(&root, "filtered", script, |config| {
        config.security.system_calls.deny = vec!["@mount".to_owned(), "sethostname".to_owned()];
        config.security.system_calls.allow = vec!["sethostname".to_owned()];
    });
    assert_eq!(out, "end\n", "what is denied stays denied");
    let mut config = common::config(&root, "wrong", "exit 0");
    config.security.system_calls.allow = vec!["@keyrign".to_owned()];
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("did you mean \"@keyring\"?"), "{error}");
}

/// Denying what the child itself uses last would break the start, not the program.
#[test]
fn sockets_can_be_denied() {
    let Some((_dir, root)) = root() else { return };
    let out = printed(
        &root,
        "nosockets",
        "/bin/busybox nc -l -p 1 2>&1 | /bin/busybox grep -c permitted",
        |config| {
            config.security.system_calls.deny = vec!["@network-io".to_owned()];
        },
    );
    assert_eq!(out, "1\n");
}

#[test]
fn suppressed_syncs_succeed_even_where_they_are_denied() {
    let Some((_dir, root)) = root() else { return };
    let script =
        "/bin/busybox dd if=/dev/zero of=/tmp/x bs=1 count=1 conv=fsync 2>/dev/null && echo fsync; echo end";
    let deny = |config: &mut runtime::ContainerConfig| {
        config.security.system_calls.deny = vec!["@sync".to_owned()];
    };
    assert_eq!(printed(&root, "sync", script, deny), "end\n");
    let out = printed(&root, "nosync", script, |config| {
        deny(config);
        config.security.suppress_sync = true;
    });
    assert_eq!(out, "fsync\nend\n", "as under systemd-nspawn, whose filter for this is the later one");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_personality_of_a_32_bit_machine() {
    let Some((_dir, root)) = root() else { return };
    for (personality, expected) in
        [(None, "x86_64\n"), (Some(Personality::Native), "x86_64\n"), (Some(Personality::Compat), "i686\n")]
    {
        let out = printed(&root, "personality", "/bin/busybox uname -m", |config| {
            config.security.personality = personality;
        });
        assert_eq!(out, expected, "{personality:?}");
    }
}

#[test]
fn an_ambient_capability_that_the_container_lacks_starts_nothing() {
    let Some((_dir, root)) = root() else { return };
    let mut config = common::config(&root, "lacks", "exit 0");
    config.security.ambient_capabilities = CapSet::of(&[Capability::CAP_SYS_MODULE]);
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("CAP_SYS_MODULE"), "{error}");
}

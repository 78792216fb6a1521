//! Values that JSON has no type for: each is written as a string, or a number, in a grammar of its own, and knows its
//! part of the schema.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use netsetup::{ForwardTo, Nat, Protocol};
use runtime::{
    ApiWritable, BindIds, BindSource, CapSet, Console, CpuMax, Device, JournalLink, LinkJournal, Mount,
    Ownership, Personality, ResolvConf, Timezone, UserNamespace, Volatile,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::grammar;
use crate::nearest::nearest;
use crate::nixos_conf::{self, LinkName, PrivateUsers};
use crate::{nspawn, signals};

/// A type for what a string says, by a function that reads it and a pattern for the schema.
macro_rules! written {
    ($(#[doc = $doc:literal])* $name:ident($target:ty), $read:expr, $pattern:literal, $example:literal) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub $target);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Written { read: $read, example: $example }).map($name)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let description = sentence(concat!($($doc),*));
                json_schema!({"description": description, "type": "string", "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}

struct Written<T> {
    read: fn(&str) -> Result<T, String>,
    example: &'static str,
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string such as {:?}", self.example)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text)
            .map_err(|expected| E::custom(format_args!("{} cannot be used: {expected}", quoted(text))))
    }
}

/// A doc comment as one line.
fn sentence(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value for a message, cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A type for a closed set of words.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident($target:ty): $($word:literal => $value:expr),+ $(,)?) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $target);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Words(&[$(($word, $value)),+])).map($name)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"description": sentence(concat!($($doc),*)), "type": "string", "enum": [$($word),+]})
            }
        }
    };
}

struct Words<T: 'static>(&'static [(&'static str, T)]);

impl<T: Copy> Visitor<'_> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of ")?;
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("{word:?}")).collect();
        f.write_str(&words.join(", "))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        if let Some((_, value)) = self.0.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let meant = nearest(text, self.0.iter().map(|(word, _)| *word));
        let advice = meant.map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
        Err(E::custom(format_args!("{} cannot be used: expected {}{advice}", quoted(text), Expecting(&self))))
    }
}

struct Expecting<'a, T: 'static>(&'a Words<T>);

impl<T: Copy> fmt::Display for Expecting<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

written!(
    /// An absolute path without `..`.
    AbsolutePath(PathBuf), grammar::path, r"^/(?!(.*/)?\.\.(/|$))[^\u0000]*$", "/srv/web");
written!(
    /// A text without NUL bytes.
    Text(String), grammar::text, r"^[^\u0000]*$", "text");
written!(
    /// The name of an environment variable.
    VariableName(String), grammar::variable, "^[A-Za-z_][A-Za-z0-9_]*$", "LANG");
written!(
    /// A hostname: letters, digits, `-` and `.`, at most 64.
    Hostname(String), grammar::hostname,
    r"^(?=.{1,64}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$", "web");
written!(
    /// A machine id: 32 hexadecimal digits, not all zero, with or without dashes.
    MachineId([u8; 16]), nspawn::uuid,
    r"^(?![0-]*$)([0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
    "12345678-9abc-def0-0001-020304050607");
written!(
    /// A signal by name or number.
    Signal(i32), nspawn_signal, r"^[A-Za-z0-9+-]+$", "SIGRTMIN+3");
written!(
    /// The name of a link on the host: 1 to 15 bytes without white space, `/` and `:`.
    Link(String), grammar::link, r"^(?!\.{1,2}$)[^\s/:\u0000]{1,15}$", "br0");
written!(
    /// A link of the host and, after a colon, its name inside where that is another.
    LinkPair(LinkName), grammar::link_pair,
    r"^(?!\.{1,2}(:|$))[^\s/:\u0000]{1,15}(:(?!\.{1,2}$)[^\s/:\u0000]{1,15})?$", "eth1:lan");
written!(
    /// The name of a zone: its bridge on the host is called `vz-ZONE`.
    Zone(String), grammar::zone, r"^(?=.{1,12}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", "backend");
written!(
    /// An IPv4 address without a prefix.
    Ipv4Host(Ipv4Addr), grammar::host_address, r"^[0-9]{1,3}(\.[0-9]{1,3}){3}(/32)?$", "10.233.1.1");
written!(
    /// An IPv6 address without a prefix.
    Ipv6Host(Ipv6Addr), grammar::host_address6, r"^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/128)?$", "fc00::1");
written!(
    /// An IPv4 address with or without a prefix.
    Ipv4Local(Ipv4Net), nspawn::net4, r"^[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?$", "10.233.1.2/24");
written!(
    /// An IPv6 address with or without a prefix.
    Ipv6Local(Ipv6Net), nspawn::net6, r"^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/[0-9]{1,3})?$", "fc00::2/64");
written!(
    /// An address of the host that a forward listens on.
    ListenAddress(IpAddr), grammar::listen_address, r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$",
    "192.0.2.1");
written!(
    /// A unicast MAC address.
    Mac([u8; 6]), grammar::mac_address, r"^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$", "02:00:00:00:00:01");
written!(
    /// Who translates the container's private addresses: `auto` on every way out, `no` nobody, else through this
    /// link only.
    NatValue(Nat), nspawn::nat, r"^(?!\.{1,2}$)[^\s/:\u0000]{1,15}$", "auto");
written!(
    /// A capability, with or without `CAP_`.
    Capability(CapSet), grammar::capability, r"^[A-Za-z_]+$", "CAP_NET_ADMIN");
written!(
    /// A system call, or a group of them with `@` before its name.
    SystemCall(String), grammar::system_call, r"^@?[a-z0-9_-]+$", "@keyring");
written!(
    /// A tmpfs: its path inside and, after a colon, options in mount(8)'s notation; `\:` is a colon within the path.
    TmpfsMount(Mount), grammar::tmpfs, r"^/", "/var:size=1G,mode=0755");
written!(
    /// Where a mount comes from: a host path; with a `+` before it, a path inside the container's root; empty: a
    /// directory that is made in /var/tmp and goes away with the container.
    Source(BindSource), grammar::source, r"^$|^\+?/(?!(.*/)?\.\.(/|$))[^\u0000]*$", "/srv/data");
written!(
    /// A device node of the host, or `char-DRIVER` or `block-DRIVER`, with `*` for any driver.
    DeviceName(Device), grammar::device, r"^(/dev/|char-|block-)[^\u0000]+$", "/dev/fuse");
written!(
    /// What may be done with a device: `r`ead, `w`rite, `m`ake nodes.
    Access(grammar::DeviceAccess), grammar::device_access, r"^(?=.)r?(w?m?|mw)$|^(w|wr|wrm|wmr|mr|mrw|mwr|rmw|wm|m|mw)$", "rw");
written!(
    /// Numbers of CPUs or memory nodes, as the kernel lists them.
    NumberList(String), grammar::number_list, r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$", "0-3,7");
written!(
    /// A user of the container's own passwd database, or a number.
    User(String), grammar::user, r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}\$?$", "nobody");
written!(
    /// Name of a credential: a file name.
    CredentialName(String), grammar::credential_name, r"^(?!\.{1,2}$)[^/:\u0000-\u001f\u007f]{1,255}$", "db-password");
written!(
    /// A resource of setrlimit(2), without `RLIMIT_`.
    LimitName(String), grammar::limit_name,
    "^(AS|CORE|CPU|DATA|FSIZE|LOCKS|MEMLOCK|MSGQUEUE|NICE|NOFILE|NPROC|RSS|RTPRIO|RTTIME|SIGPENDING|STACK)$", "NOFILE");

fn nspawn_signal(text: &str) -> Result<i32, String> {
    signals::parse(text).map_err(|expected| format!("expected {expected}"))
}

words!(
    /// What of the root is forgotten at the end.
    VolatileWord(Volatile): "no" => Volatile::No, "yes" => Volatile::Yes, "state" => Volatile::State,
    "overlay" => Volatile::Overlay);
/// When a container is started again after an end that nobody asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// When it reboots itself, and else not.
    #[default]
    No,
    /// When it failed, too, or its nixrun was killed.
    OnFailure,
    /// Whenever it ends.
    Always,
}
words!(
    /// When a container is started again after an end that nobody asked for: `no` when it reboots itself only,
    /// `on-failure` when it failed, too, or its nixrun was killed, `always` whenever it ends.
    RestartWord(Restart): "no" => Restart::No, "on-failure" => Restart::OnFailure, "always" => Restart::Always);
words!(
    /// How the root's files come to belong to the container's users.
    OwnershipWord(Ownership): "off" => Ownership::Off, "map" => Ownership::Map, "chown" => Ownership::Chown,
    "auto" => Ownership::Auto);
words!(
    /// How owners of files appear inside a user namespace.
    IdsWord(BindIds): "auto" => BindIds::Auto, "host" => BindIds::Host, "map" => BindIds::Map, "root" => BindIds::Root,
    "owner" => BindIds::Owner);
words!(
    /// The kind of machine that programs see.
    PersonalityWord(Personality): "native" => Personality::Native, "compat" => Personality::Compat);
words!(
    /// What becomes of the container's /etc/resolv.conf.
    ResolvConfWord(ResolvConf): "off" => ResolvConf::Off, "auto" => ResolvConf::Auto, "delete" => ResolvConf::Delete,
    "copy-host" => ResolvConf::CopyHost, "copy-static" => ResolvConf::CopyStatic,
    "copy-uplink" => ResolvConf::CopyUplink, "copy-stub" => ResolvConf::CopyStub,
    "replace-host" => ResolvConf::ReplaceHost, "replace-static" => ResolvConf::ReplaceStatic,
    "replace-uplink" => ResolvConf::ReplaceUplink, "replace-stub" => ResolvConf::ReplaceStub,
    "bind-host" => ResolvConf::BindHost, "bind-static" => ResolvConf::BindStatic,
    "bind-uplink" => ResolvConf::BindUplink, "bind-stub" => ResolvConf::BindStub,
    "follow" => ResolvConf::Follow, "replace-follow" => ResolvConf::ReplaceFollow);
words!(
    /// What becomes of the container's /etc/localtime.
    TimezoneWord(Timezone): "off" => Timezone::Off, "auto" => Timezone::Auto, "copy" => Timezone::Copy,
    "bind" => Timezone::Bind, "symlink" => Timezone::Symlink, "delete" => Timezone::Delete);
words!(
    /// Where the container's journal is.
    JournalWord(LinkJournal):
    "no" => LinkJournal { mode: JournalLink::No, optional: false },
    "auto" => LinkJournal { mode: JournalLink::Auto, optional: false },
    "host" => LinkJournal { mode: JournalLink::Host, optional: false },
    "try-host" => LinkJournal { mode: JournalLink::Host, optional: true },
    "guest" => LinkJournal { mode: JournalLink::Guest, optional: false },
    "try-guest" => LinkJournal { mode: JournalLink::Guest, optional: true });
words!(
    /// Which of /sys and /proc/sys are writable: with `default` nothing but /proc/sys/net of a network of the
    /// container's own.
    WritableWord(ApiWritable): "default" => ApiWritable::Default, "network" => ApiWritable::Network,
    "yes" => ApiWritable::Yes);
words!(
    /// What /dev/console is connected to.
    ConsoleWord(Console): "interactive" => Console::Interactive, "read-only" => Console::ReadOnly,
    "passive" => Console::Passive, "pipe" => Console::Pipe);
words!(
    /// Which address of the container forwards lead to: the configured one, or the first global one that its link has
    /// at the time.
    ForwardToWord(ForwardTo): "configured" => ForwardTo::Configured, "current" => ForwardTo::Current);
words!(
    /// A transport protocol.
    ProtocolWord(Protocol): "tcp" => Protocol::Tcp, "udp" => Protocol::Udp, "sctp" => Protocol::Sctp);

/// A type for what a number or a string says.
macro_rules! counted {
    ($(#[doc = $doc:literal])* $name:ident($target:ty), $number:expr, $read:expr, $expecting:literal, $schema:tt) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $target);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer
                    .deserialize_any(Counted { number: $number, read: $read, expecting: $expecting })
                    .map($name)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($schema);
                schema.insert("description".to_owned(), sentence(concat!($($doc),*)).into());
                schema
            }
        }
    };
}

struct Counted<T> {
    number: fn(u64) -> Result<T, String>,
    read: fn(&str) -> Result<T, String>,
    expecting: &'static str,
}

impl<T> Visitor<'_> for Counted<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).map_err(|why| E::custom(format_args!("{number} cannot be used: {why}")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(|why| E::custom(format_args!("{} cannot be used: {why}", quoted(text))))
    }
}

counted!(
    /// A number of bytes, or a string with a unit of 1024: `"512M"`, `"2G"`; `"max"` for no limit.
    Bytes(u64), Ok, grammar::bytes, "a number of bytes, or a string such as \"2G\" or \"max\"",
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 18_446_744_073_709_551_615_u64},
               {"type": "string", "pattern": "^([0-9]{1,20}[KMGTPE]?|max)$", "examples": ["2G"]}]});
counted!(
    /// A number, or `"max"` for no limit.
    Count(u64), Ok, grammar::count, "a number, or \"max\"",
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 18_446_744_073_709_551_615_u64}, {"const": "max"}]});
counted!(
    /// The number of a CPU.
    CpuNumber(u32), grammar::cpu_number, grammar::no_cpu_name, "the number of a CPU",
    {"type": "integer", "minimum": 0, "maximum": 8191});
counted!(
    /// Processor time as a percentage of one CPU, `"150%"`; or microseconds in each period, `"50000/100000"`; `"max"`
    /// for no limit.
    CpuTime(CpuMax), grammar::no_cpu_number, grammar::cpu_max, "a string such as \"150%\", \"50000/100000\" or \"max\"",
    {"type": "string", "pattern": "^([0-9]{1,7}%|[0-9]{1,15}/[0-9]{1,7}|max)$", "examples": ["150%"]});
counted!(
    /// The user namespace: `"no"`, `"identity"`, `"pick"`, `"yes"` (the owner of the root directory), the host's id of
    /// the container's root, or `"BASE:COUNT"`.
    UsersValue(UserNamespace), users_by_number, users, "no, yes, identity, pick, a host id, or \"BASE:COUNT\"",
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 4_294_901_758_u64},
               {"type": "string", "pattern": "^(no|yes|identity|pick|[0-9]{1,10}(:[0-9]{1,10})?)$"}]});
counted!(
    /// One or two limits of setrlimit(2), soft and hard: a number, `"infinity"`, or `"SOFT:HARD"`.
    Limit((u64, u64)), grammar::limit_by_number, grammar::limit, "a number, \"infinity\", or \"SOFT:HARD\"",
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 18_446_744_073_709_551_615_u64},
               {"type": "string", "pattern": "^([0-9]{1,20}|infinity)(:([0-9]{1,20}|infinity))?$"}]});

fn users_by_number(number: u64) -> Result<UserNamespace, String> {
    users(&number.to_string())
}

fn users(text: &str) -> Result<UserNamespace, String> {
    text.parse::<PrivateUsers>()
        .map(nixos_conf::PrivateUsers::namespace)
        .map_err(|expected| format!("expected {expected}"))
}

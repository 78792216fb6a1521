//! The table of options.

use super::options::Argument::{No, Optional, Required};
use super::options::Judgement::{Better, Except, Refused};
use super::options::Trust::{Administrator, Anyone, Restricting};
use super::options::{Entry, Group, Id, Judgement, Setting, exec, files, network};

const IMAGE: Group = Group::Titled("Image");
const EXECUTION: Group = Group::Titled("Execution");
const IDENTITY: Group = Group::Titled("System Identity");
const PROPERTIES: Group = Group::Titled("Properties");
const USERS: Group = Group::Titled("User Namespacing");
const NETWORKING: Group = Group::Titled("Networking");
const SECURITY: Group = Group::Titled("Security");
const RESOURCES: Group = Group::Titled("Resources");
const INTEGRATION: Group = Group::Titled("Integration");
const MOUNTS: Group = Group::Titled("Mounts");
const CONSOLE: Group = Group::Titled("Input/Output");
const CREDENTIALS: Group = Group::Titled("Credentials");

const NO_VERITY: Judgement =
    Refused("nixrun mounts file systems and partitions as they are and verifies no dm-verity hash");
const NO_SELINUX: Judgement = Refused("nixrun sets no SELinux labels");

/// The table, in the order of `--help`: an option a row, which columns say more about than lines would.
#[rustfmt::skip]
pub static OPTIONS: &[Entry] = &[
    Entry::new(Id::Help, "help", No, Group::General, "Show this help").short('h'),
    Entry::new(Id::Version, "version", No, Group::General, "Print version string"),
    Entry::new(Id::Quiet, "quiet", No, Group::General, "Do not show status information").short('q'),
    Entry::new(Id::NoPager, "no-pager", No, Group::General, "Do not pipe output into a pager")
        .judged(Better("there is never a pager")),
    Entry::new(Id::Settings, "settings", Required("BOOLEAN"), Group::General,
        "Load additional settings from .nspawn file; also override and trusted"),
    Entry::new(Id::Cleanup, "cleanup", No, Group::General,
        "Clean up what a container of this name left behind that was not shut down, and exit (v257)")
        .judged(Better("every start does it, too; it removes links, forwards and control groups as well")),
    Entry::new(Id::Directory, "directory", Required("PATH"), IMAGE, "Root directory for the container")
        .short('D').setting(Setting::Directory),
    Entry::new(Id::Template, "template", Required("PATH"), IMAGE,
        "Initialize root directory from template directory, if missing").setting(Setting::Directory),
    Entry::new(Id::Ephemeral, "ephemeral", No, IMAGE,
        "Run container with snapshot of root directory, and remove it after exit").short('x')
        .keys(&[exec("Ephemeral", Administrator)]).setting(Setting::Ephemeral)
        .judged(Better("nothing is copied: what the container writes goes to a layer in memory")),
    Entry::new(Id::Image, "image", Required("PATH"), IMAGE,
        "Root file system disk image (or device node) for the container").short('i').setting(Setting::Directory),
    Entry::new(Id::ImagePolicy, "image-policy", Required("POLICY"), IMAGE,
        "Specify disk image dissection policy")
        .judged(Refused("nixrun mounts one root file system of an image and nothing else, so there is nothing \
            to choose")),
    Entry::new(Id::OciBundle, "oci-bundle", Required("PATH"), IMAGE, "OCI bundle directory")
        .judged(Refused("nixrun does not read OCI bundles yet")),
    Entry::new(Id::ReadOnly, "read-only", No, IMAGE, "Mount the root directory read-only")
        .keys(&[files("ReadOnly", Anyone)]).setting(Setting::ReadOnly),
    Entry::new(Id::Volatile, "volatile", Optional("MODE"), IMAGE,
        "Run the system in volatile mode: no, yes, state, or overlay").keys(&[files("Volatile", Anyone)])
        .setting(Setting::Volatile),
    Entry::new(Id::RootHash, "root-hash", Required("HASH"), IMAGE,
        "Specify verity root hash for root disk image").judged(NO_VERITY),
    Entry::new(Id::RootHashSig, "root-hash-sig", Required("SIG"), IMAGE,
        "Specify pkcs7 signature of root hash for verity as a DER encoded PKCS7, either as a path to a file \
            or as an ASCII base64 encoded string prefixed by 'base64:'")
        .judged(NO_VERITY),
    Entry::new(Id::VerityData, "verity-data", Required("PATH"), IMAGE, "Specify hash device for verity")
        .judged(NO_VERITY),
    Entry::new(Id::PivotRoot, "pivot-root", Required("PATH[:PATH]"), IMAGE,
        "Pivot root to given directory in the container").keys(&[exec("PivotRoot", Anyone)])
        .setting(Setting::PivotRoot),
    Entry::new(Id::AsPid2, "as-pid2", No, EXECUTION, "Maintain a stub init as PID1, invoke binary as PID2")
        .short('a').keys(&[exec("ProcessTwo", Anyone)]).setting(Setting::StartMode),
    Entry::new(Id::Boot, "boot", No, EXECUTION, "Boot up full system (i.e. invoke init)").short('b')
        .keys(&[exec("Boot", Anyone)]).setting(Setting::StartMode),
    Entry::new(Id::Parameters, "", No, Group::Hidden, "The command, or the arguments of the init")
        .keys(&[exec("Parameters", Anyone)]).setting(Setting::StartMode),
    Entry::new(Id::Chdir, "chdir", Required("PATH"), EXECUTION, "Set working directory in the container")
        .keys(&[exec("WorkingDirectory", Anyone)]).setting(Setting::WorkingDirectory),
    Entry::new(Id::Setenv, "setenv", Required("NAME[=VALUE]"), EXECUTION,
        "Pass an environment variable to PID 1").short('E').keys(&[exec("Environment", Anyone)])
        .setting(Setting::Environment),
    Entry::new(Id::User, "user", Required("USER"), EXECUTION, "Run the command under specified user or UID")
        .short('u').keys(&[exec("User", Anyone)]).setting(Setting::User)
        .judged(Better("the container's passwd and group files are read, without running its getent")),
    Entry::new(Id::KillSignal, "kill-signal", Required("SIGNAL"), EXECUTION,
        "Select signal to use for shutting down PID 1").keys(&[exec("KillSignal", Anyone)])
        .setting(Setting::KillSignal)
        .judged(Better("it is held back until PID 1 listens to it, so an early stop is not lost")),
    Entry::new(Id::NotifyReady, "notify-ready", Required("BOOLEAN"), EXECUTION,
        "Receive notifications from the child init process").keys(&[exec("NotifyReady", Anyone)])
        .setting(Setting::NotifyReady),
    Entry::new(Id::SuppressSync, "suppress-sync", Required("BOOLEAN"), EXECUTION,
        "Suppress any form of disk data synchronization").keys(&[exec("SuppressSync", Anyone)])
        .setting(Setting::SuppressSync),
    Entry::new(Id::Machine, "machine", Required("NAME"), IDENTITY, "Set the machine name for the container")
        .short('M'),
    Entry::new(Id::Hostname, "hostname", Required("NAME"), IDENTITY, "Override the hostname for the container")
        .keys(&[exec("Hostname", Anyone)]).setting(Setting::Hostname),
    Entry::new(Id::Uuid, "uuid", Required("UUID"), IDENTITY, "Set a specific machine UUID for the container")
        .keys(&[exec("MachineID", Administrator)]).setting(Setting::MachineId),
    Entry::new(Id::Slice, "slice", Required("SLICE"), PROPERTIES, "Place the container in the specified slice")
        .short('S').setting(Setting::Slice),
    Entry::new(Id::Property, "property", Required("NAME=VALUE"), PROPERTIES, "Set scope unit property"),
    Entry::new(Id::Register, "register", Required("BOOLEAN"), PROPERTIES, "Register container as machine")
        .judged(Better("a machined that refuses, or is not there, is a warning and not the end; it delays \
            nothing")),
    Entry::new(Id::KeepUnit, "keep-unit", No, PROPERTIES,
        "Do not register a scope for the machine, reuse the service unit nspawn is running in"),
    Entry::new(Id::PrivateUsers, "private-users", Optional("no|yes|pick|identity|UIDBASE[:NUIDS]"), USERS,
        "Run without user namespacing (no), or within a user namespace: with the range of the root \
            directory's owner (yes), an automatically selected one (pick), the host's own UIDs (identity), or
            a user configured one")
        .keys(&[exec("PrivateUsers", Administrator)]).setting(Setting::Users),
    Entry::new(Id::PrivateUsersChown, "private-users-chown", Optional(""), Group::Hidden,
        "Equivalent to --private-users-ownership=chown (obsolete)")
        .keys(&[files("PrivateUsersChown", Administrator)]).setting(Setting::Users),
    Entry::new(Id::PrivateUsersOwnership, "private-users-ownership", Required("MODE"), USERS,
        "Adjust ('chown') or map ('map') OS tree ownership to private UID/GID range; also off and auto")
        .keys(&[files("PrivateUsersOwnership", Administrator)]).setting(Setting::Users),
    Entry::new(Id::PickUsers, "", No, USERS,
        "Equivalent to --private-users=pick and --private-users-ownership=auto").short('U')
        .setting(Setting::Users),
    Entry::new(Id::PrivateNetwork, "private-network", No, NETWORKING, "Disable network in container")
        .keys(&[network("Private")]).setting(Setting::Network),
    Entry::new(Id::NetworkInterface, "network-interface", Required("HOSTIF[:CONTAINERIF]"), NETWORKING,
        "Assign an existing network interface to the container").keys(&[network("Interface")])
        .setting(Setting::Network),
    Entry::new(Id::NetworkMacvlan, "network-macvlan", Required("HOSTIF[:CONTAINERIF]"), NETWORKING,
        "Create a macvlan network interface based on an existing network interface to the container")
        .keys(&[network("MACVLAN")]).setting(Setting::Network),
    Entry::new(Id::NetworkIpvlan, "network-ipvlan", Required("HOSTIF[:CONTAINERIF]"), NETWORKING,
        "Create an ipvlan network interface based on an existing network interface to the container")
        .keys(&[network("IPVLAN")]).setting(Setting::Network),
    Entry::new(Id::NetworkVeth, "network-veth", No, NETWORKING,
        "Add a virtual Ethernet connection between host and container").short('n')
        .keys(&[network("VirtualEthernet")]).setting(Setting::Network),
    Entry::new(Id::NetworkVethExtra, "network-veth-extra", Required("HOSTIF[:CONTAINERIF]"), NETWORKING,
        "Add an additional virtual Ethernet link between host and container")
        .keys(&[network("VirtualEthernetExtra")]).setting(Setting::Network),
    Entry::new(Id::NetworkBridge, "network-bridge", Required("INTERFACE"), NETWORKING,
        "Add a virtual Ethernet connection to the container and attach it to an existing bridge on the host")
        .keys(&[network("Bridge")]).setting(Setting::Network),
    Entry::new(Id::NetworkZone, "network-zone", Required("NAME"), NETWORKING,
        "Similar, but attach the new interface to an automatically managed bridge interface")
        .keys(&[network("Zone")]).setting(Setting::Network),
    Entry::new(Id::NetworkNamespacePath, "network-namespace-path", Required("PATH"), NETWORKING,
        "Set network namespace to the one represented by the specified kernel namespace file node")
        .setting(Setting::Network),
    Entry::new(Id::Port, "port", Required("[PROTOCOL:]HOSTPORT[:CONTAINERPORT]"), NETWORKING,
        "Expose a container IP port on the host").short('p').keys(&[network("Port")])
        .setting(Setting::ExposePorts)
        .judged(Better("the port answers on the host's own addresses and 127.0.0.1, too; an address of the \
            host may be named, as in tcp:192.0.2.1:8080:80")),
    Entry::new(Id::Capability, "capability", Required("CAP"), SECURITY,
        "In addition to the default, retain specified capability").keys(&[exec("Capability", Administrator)])
        .setting(Setting::Capability),
    Entry::new(Id::DropCapability, "drop-capability", Required("CAP"), SECURITY,
        "Drop the specified capability from the default set").keys(&[exec("DropCapability", Anyone)])
        .setting(Setting::Capability),
    Entry::new(Id::AmbientCapability, "ambient-capability", Required("CAP"), SECURITY,
        "Sets the specified capability for the started process. Not useful if booting a machine.")
        .keys(&[exec("AmbientCapability", Administrator)]).setting(Setting::Capability),
    Entry::new(Id::NoNewPrivileges, "no-new-privileges", Required("BOOLEAN"), SECURITY,
        "Set PR_SET_NO_NEW_PRIVS flag for container payload").keys(&[exec("NoNewPrivileges", Anyone)])
        .setting(Setting::NoNewPrivileges),
    Entry::new(Id::SystemCallFilter, "system-call-filter", Required("LIST|~LIST"), SECURITY,
        "Permit/prohibit specific system calls").keys(&[exec("SystemCallFilter", Restricting)])
        .setting(Setting::SystemCallFilter),
    Entry::new(Id::SelinuxContext, "selinux-context", Required("SECLABEL"), SECURITY,
        "Set the SELinux security context to be used by processes in the container").short('Z')
        .judged(NO_SELINUX),
    Entry::new(Id::SelinuxApifsContext, "selinux-apifs-context", Required("SECLABEL"), SECURITY,
        "Set the SELinux security context to be used by API/tmpfs file systems in the container").short('L')
        .judged(NO_SELINUX),
    Entry::new(Id::ShareSystem, "share-system", No, Group::Hidden,
        "Equivalent to SYSTEMD_NSPAWN_SHARE_SYSTEM=1 in the environment (obsolete)"),
    Entry::new(Id::Rlimit, "rlimit", Required("NAME=LIMIT"), RESOURCES, "Set a resource limit for the payload")
        .keys(&[exec("LimitCPU", Administrator), exec("LimitFSIZE", Administrator), exec("LimitDATA",
            Administrator), exec("LimitSTACK", Administrator), exec("LimitCORE", Administrator),
            exec("LimitRSS", Administrator), exec("LimitNOFILE", Administrator), exec("LimitAS",
            Administrator), exec("LimitNPROC", Administrator), exec("LimitMEMLOCK", Administrator),
            exec("LimitLOCKS", Administrator), exec("LimitSIGPENDING", Administrator), exec("LimitMSGQUEUE",
            Administrator), exec("LimitNICE", Administrator), exec("LimitRTPRIO", Administrator),
            exec("LimitRTTIME", Administrator)]),
    Entry::new(Id::OomScoreAdjust, "oom-score-adjust", Required("VALUE"), RESOURCES,
        "Adjust the OOM score value for the payload").keys(&[exec("OOMScoreAdjust", Administrator)])
        .setting(Setting::OomScoreAdjust),
    Entry::new(Id::CpuAffinity, "cpu-affinity", Required("CPUS"), RESOURCES,
        "Adjust the CPU affinity of the container").keys(&[exec("CPUAffinity", Administrator)])
        .setting(Setting::CpuAffinity),
    Entry::new(Id::Personality, "personality", Required("ARCH"), RESOURCES,
        "Pick personality for this container").keys(&[exec("Personality", Anyone)])
        .setting(Setting::Personality),
    Entry::new(Id::ResolvConf, "resolv-conf", Required("MODE"), INTEGRATION,
        "Select mode of /etc/resolv.conf initialization").keys(&[exec("ResolvConf", Anyone)])
        .setting(Setting::ResolvConf),
    Entry::new(Id::Timezone, "timezone", Required("MODE"), INTEGRATION,
        "Select mode of /etc/localtime initialization").keys(&[exec("Timezone", Anyone)])
        .setting(Setting::Timezone),
    Entry::new(Id::LinkJournal, "link-journal", Required("MODE"), INTEGRATION,
        "Link up guest journal, one of no, auto, guest, host, try-guest, try-host")
        .keys(&[exec("LinkJournal", Administrator)]).setting(Setting::LinkJournal),
    Entry::new(Id::TryGuestJournal, "", No, INTEGRATION, "Equivalent to --link-journal=try-guest").short('j')
        .setting(Setting::LinkJournal),
    Entry::new(Id::Bind, "bind", Required("PATH[:PATH[:OPTIONS]]"), MOUNTS,
        "Bind mount a file or directory from the host into the container").keys(&[files("Bind", Administrator)])
        .setting(Setting::CustomMounts)
        .judged(Better("with a user namespace the owners of files are mapped unless noidmap is given, where \
            the file system can. A mount on / is refused; name its source with --directory")),
    Entry::new(Id::BindRo, "bind-ro", Required("PATH[:PATH[:OPTIONS]]"), MOUNTS,
        "Similar, but creates a read-only bind mount").keys(&[files("BindReadOnly", Administrator)])
        .setting(Setting::CustomMounts).judged(Better("owners, and / as a target, as with --bind")),
    Entry::new(Id::Inaccessible, "inaccessible", Required("PATH"), MOUNTS,
        "Over-mount file node with inaccessible node to mask it").keys(&[files("Inaccessible", Administrator)])
        .setting(Setting::CustomMounts),
    Entry::new(Id::Tmpfs, "tmpfs", Required("PATH[:OPTIONS]"), MOUNTS,
        "Mount an empty tmpfs to the specified directory").keys(&[files("TemporaryFileSystem", Administrator)])
        .setting(Setting::CustomMounts).judged(Except("a tmpfs on / is refused; --volatile has one, and keeps /usr")),
    Entry::new(Id::Overlay, "overlay", Required("PATH[:PATH...]:PATH"), MOUNTS,
        "Create an overlay mount from the host to the container").keys(&[files("Overlay", Administrator)])
        .setting(Setting::CustomMounts).judged(Except("an overlay on / is refused; --ephemeral and --volatile=overlay make one")),
    Entry::new(Id::OverlayRo, "overlay-ro", Required("PATH[:PATH...]:PATH"), MOUNTS,
        "Similar, but creates a read-only overlay mount").keys(&[files("OverlayReadOnly", Administrator)])
        .setting(Setting::CustomMounts).judged(Except("as --overlay")),
    Entry::new(Id::BindUser, "bind-user", Required("NAME"), MOUNTS, "Bind user from host to container")
        .keys(&[files("BindUser", Administrator)]).setting(Setting::BindUser)
        .judged(Refused("nixrun writes no user records; bind the home directory with --bind and create the \
            user inside")),
    Entry::new(Id::BindUserShell, "bind-user-shell", Required("BOOL|PATH"), MOUNTS,
        "Configure the shell to use for --bind-user= users (v257)")
        .judged(Refused("nixrun writes no user records, see --bind-user")),
    Entry::new(Id::Console, "console", Required("MODE"), CONSOLE,
        "Select how stdin/stdout/stderr and /dev/console are set up for the container.")
        .setting(Setting::Console),
    Entry::new(Id::Pipe, "pipe", No, CONSOLE, "Equivalent to --console=pipe").short('P')
        .setting(Setting::Console),
    Entry::new(Id::Background, "background", Required("COLOR"), CONSOLE,
        "Set ANSI color for background; empty for none")
        .judged(Refused("nixrun leaves the colors of the terminal alone, as an empty COLOR asks")),
    Entry::new(Id::SetCredential, "set-credential", Required("ID:VALUE"), CREDENTIALS,
        "Pass a credential with literal value to container.").setting(Setting::Credentials),
    Entry::new(Id::LoadCredential, "load-credential", Required("ID:PATH"), CREDENTIALS,
        "Load credential to pass to container from file or AF_UNIX stream socket.")
        .setting(Setting::Credentials),
];

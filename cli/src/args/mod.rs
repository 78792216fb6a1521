//! The command line.
//!
//! `nixrun`'s own start is part of a container's start. Building clap's definition of every command takes as long as
//! a third of the system calls of a launch, so [`parse`] builds only the definition of the command that the first
//! argument names. Help, errors, and options before the command go through the full definition.

mod call;
mod data;
mod inside;
mod life;
mod observe;
mod run;
mod tools;
mod whole;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use netsetup::{Forward, Nat};
use runtime::{CapSet, Console, Mount};

pub use call::Call;
pub use data::{CpArgs, ExportArgs, ImportArgs};
pub use inside::{LoginArgs, LogsArgs, ShowHostKeyArgs, ShowIpArgs};
pub use life::{
    AutostartArgs, CreateArgs, DestroyArgs, DiffArgs, GenerationsArgs, PauseArgs, ReloadArgs, RestartArgs,
    ResumeArgs, RollbackArgs, SetArgs, SourceArgs, TerminateArgs, UpdateArgs,
};
pub use observe::{EventsArgs, InspectArgs, MetricsArgs, StatsArgs, TopArgs};
pub use tools::{CompletionsArgs, DoctorArgs, ManArgs, ReclaimArgs, SchemaArgs, Shell};
pub use whole::{GROUPS, definition};

use crate::json::Restart;
use crate::service::keeper;
use crate::{exit, group_limit, nspawn};

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "nixrun",
    version,
    about = "Boots NixOS containers in milliseconds",
    after_help = exit::TABLE,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Invocation {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Take the host's files from below DIR: settings, container roots, Nix store, /run (for tests).
    #[arg(long, value_name = "DIR", global = true, default_value = "/")]
    pub host_root: PathBuf,
    /// Say what is being done; twice, also why.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Make a NixOS container, with addresses of its own from the pool.
    Create(Box<CreateArgs>),
    /// Give a container a new system, and activate it in the container if that runs.
    Update(Box<UpdateArgs>),
    /// Remove a container: its configuration, its profile and its root directory.
    Destroy(DestroyArgs),
    /// Boot a configured NixOS container and stay with it until it ends.
    Boot(BootArgs),
    /// Run a command in a running container, as root after a login; or, with -D or -i, in a new one of any root.
    Run(Box<RunArgs>),
    /// Boot a configured NixOS container in the background; return when it is ready.
    Start(StartArgs),
    /// Shut a running container down and wait until it is gone.
    Stop(StopArgs),
    /// Shut a container down and start it again.
    Restart(RestartArgs),
    /// End every process of a container at once.
    Terminate(TerminateArgs),
    /// Activate the container's present system in it, without a restart.
    Reload(ReloadArgs),
    /// Start every container that is to be started with the host, those that others need first.
    Autostart(AutostartArgs),
    /// Freeze every process of a container.
    Pause(PauseArgs),
    /// Let a paused container go on.
    Resume(ResumeArgs),
    /// Change settings of a container, at once and for good.
    Set(SetArgs),
    /// End a container at once, or send a signal to its PID 1.
    Kill(KillArgs),
    /// List the configured and the running containers.
    List(ListArgs),
    /// Show the state of one container.
    Status(StatusArgs),
    /// Run a command inside a running container.
    Exec(ExecArgs),
    /// Log in to a running container, as its users do.
    Login(LoginArgs),
    /// Get a shell of root in a running container.
    RootLogin(LoginArgs),
    /// Print the container's address.
    ShowIp(ShowIpArgs),
    /// Print the public key of the container's SSH server.
    ShowHostKey(ShowHostKeyArgs),
    /// Show what a container has logged: its journal, or its console where there is none.
    Logs(LogsArgs),
    /// Show what the running containers use, again and again.
    Top(TopArgs),
    /// Print what happens to containers, a JSON object a line, until interrupted.
    Events(EventsArgs),
    /// Show what one container uses.
    Stats(StatsArgs),
    /// Show everything about one container: configuration, plan, live state.
    Inspect(InspectArgs),
    /// Give measurements of all containers to Prometheus.
    Metrics(MetricsArgs),
    /// List the systems that a container has had.
    Generations(GenerationsArgs),
    /// Go back to an earlier system.
    Rollback(RollbackArgs),
    /// Show what two systems of a container differ in.
    Diff(DiffArgs),
    /// Copy files into a container or out of it.
    Cp(CpArgs),
    /// Write a container, its root directory and its configuration, into a file.
    Export(ExportArgs),
    /// Make a container from an exported file.
    Import(ImportArgs),
    /// Print everything that booting a container would do, and change nothing.
    Plan(PlanArgs),
    /// Remove what a container left behind whose nixrun was killed.
    Reclaim(ReclaimArgs),
    /// Take systemd-nspawn's command line; so does nixrun when it is called by the name systemd-nspawn.
    #[command(disable_help_flag = true)]
    Nspawn(NspawnArgs),
    /// Take nixos-container's command line; so does nixrun when it is called by the name nixos-container.
    #[command(disable_help_flag = true, hide = true)]
    NixosContainer(NspawnArgs),
    /// Check whether this host has what containers need.
    Doctor(DoctorArgs),
    /// Print the schema of /etc/nixrun/NAME.json, or check such a file.
    Schema(SchemaArgs),
    /// Print a shell's completion script.
    Completions(CompletionsArgs),
    /// Write the manual pages.
    Man(ManArgs),
}

/// Options of `nspawn` and `nixos-container`: those of the programs of these names, which clap does not read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct NspawnArgs {
    /// As of that program; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub words: Vec<OsString>,
}

/// Options of `boot`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct BootArgs {
    /// The container: /etc/nixos-containers/NAME.conf and /etc/nixrun/NAME.json configure it, or one of the two.
    pub name: String,
    /// Who translates the container's addresses.
    #[command(flatten)]
    pub nat: NatArg,
    /// What the container's console is connected to.
    #[command(flatten)]
    pub console: ConsoleArg,
    /// How `start` calls `boot`: in a session of its own, which restarts the container when it reboots.
    #[arg(long, hide = true)]
    pub background: bool,
    /// How `start` calls `boot` for a container with a restart policy: this process keeps the one that boots it.
    #[arg(long, hide = true, requires = "background", value_parser = keep)]
    pub keep: Option<Restart>,
    /// Seconds that each later start may take until it is ready.
    #[arg(long, hide = true, requires = "keep", default_value_t = 60)]
    pub keep_timeout: u64,
    /// How a keeper calls `boot`.
    #[arg(long, hide = true, requires = "background", conflicts_with = "keep")]
    pub kept: bool,
}

/// Who translates the container's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct NatArg {
    /// Translate private addresses on their way out of the host: through any link (auto), not at all, or through
    /// LINK only; what the configuration says when not given, and else auto.
    #[arg(long, value_name = "auto|no|LINK", value_parser = nspawn::nat)]
    pub nat: Option<Nat>,
}

/// What the container's console is connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ConsoleArg {
    /// Connect the console with our stdin and stdout, with stdout alone, or not at all; interactive on a
    /// terminal, else read-only.
    #[arg(long, value_name = "interactive|read-only|pipe", value_parser = nspawn::console)]
    pub console: Option<Console>,
}

/// Options of `run`, called as systemd-nspawn calls them; without -D and -i the first word is a container that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(
    override_usage = "nixrun run NAME -- COMMAND...\n       nixrun run <-D DIR|-i IMAGE> [OPTIONS] [--] [COMMAND...]"
)]
pub struct RunArgs {
    /// The container to run the command in; the options below are for new ones.
    #[arg(skip)]
    pub inside: Option<String>,
    /// The directory that becomes the root of a new container.
    #[arg(short = 'D', long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// The disk image, or block device, that becomes the root of a new container.
    #[arg(short, long, value_name = "IMAGE", conflicts_with = "directory")]
    pub image: Option<PathBuf>,
    /// Name of the container; made up when not given.
    #[arg(short = 'M', long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Hostname inside; the container's name when not given.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Machine id, unless the root has one.
    #[arg(long, value_name = "UUID", value_parser = nspawn::uuid)]
    pub uuid: Option<[u8; 16]>,
    /// The network.
    #[command(flatten)]
    pub network: RunNetwork,
    /// Set a variable for PID 1; without a value, to what it is here.
    #[arg(short = 'E', long, value_name = "KEY[=VALUE]", value_parser = nspawn::setenv)]
    pub setenv: Vec<nspawn::SetEnv>,
    /// Working directory of the command.
    #[arg(long, value_name = "PATH", value_parser = nspawn::inside)]
    pub chdir: Option<PathBuf>,
    /// Bind mount a file or directory of the host, of the container (+SOURCE), or a new directory (empty SOURCE);
    /// OPTIONS are rbind (the default), norbind, idmap, noidmap, rootidmap and owneridmap.
    #[arg(long, value_name = "SOURCE[:PATH[:OPTIONS]]", value_parser = nspawn::bind_writable)]
    pub bind: Vec<Mount>,
    /// The same, read-only.
    #[arg(long, value_name = "SOURCE[:PATH[:OPTIONS]]", value_parser = nspawn::bind_read_only)]
    pub bind_ro: Vec<Mount>,
    /// Mount a tmpfs; OPTIONS as of mount(8), mode=0755 when not given.
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = nspawn::tmpfs)]
    pub tmpfs: Vec<Mount>,
    /// Give capabilities beyond the default ones.
    #[arg(long, value_name = "CAP,…", value_parser = nspawn::capabilities)]
    pub capability: Vec<CapSet>,
    /// Take capabilities away.
    #[arg(long, value_name = "CAP,…", value_parser = nspawn::capabilities)]
    pub drop_capability: Vec<CapSet>,
    /// Limit the container's control group: memory.max=512M, cpu.max=50000, pids.max=100, io.max=/dev/sda rbps=1M.
    #[arg(long, value_name = "FILE=VALUE", value_parser = group_limit::parse)]
    pub limit: Vec<group_limit::GroupLimit>,
    /// Let containers run inside: nixrun, systemd-nspawn, podman.
    #[arg(long)]
    pub nested: bool,
    /// Signal that asks PID 1 to shut down: TERM for a command, SIGRTMIN+3 for an init when not given.
    #[arg(long, value_name = "SIGNAL", value_parser = nspawn::signal)]
    pub kill_signal: Option<i32>,
    /// Whether PID 1 says itself when it is ready.
    #[arg(long, value_name = "BOOL", default_value = "no", action = clap::ArgAction::Set,
          value_parser = nspawn::boolean)]
    pub notify_ready: bool,
    /// What the container's console is connected to.
    #[command(flatten)]
    pub console: ConsoleArg,
    /// The command and its arguments; the root's init when not given.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The network of `run`: the host's, unless one of these is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunNetwork {
    /// A network of its own, with the loopback link only.
    #[arg(long)]
    pub private_network: bool,
    /// A network of its own with a veth pair: ve-NAME on the host, host0 inside.
    #[arg(short = 'n', long)]
    pub network_veth: bool,
    /// A veth pair whose host end, vb-NAME, joins this bridge.
    #[arg(long, value_name = "BRIDGE", value_parser = nspawn::link)]
    pub network_bridge: Option<String>,
    /// Forward a port of the host into the container.
    #[arg(short, long, value_name = "[PROTOCOL:]HOST[:INSIDE]", value_parser = nspawn::port)]
    pub port: Vec<Forward>,
    /// IPv4 address of the host's end.
    #[arg(long, value_name = "ADDRESS")]
    pub host_address: Option<std::net::Ipv4Addr>,
    /// IPv6 address of the host's end.
    #[arg(long, value_name = "ADDRESS")]
    pub host_address6: Option<std::net::Ipv6Addr>,
    /// IPv4 address of the container's end.
    #[arg(long, value_name = "ADDRESS[/PREFIX]", value_parser = nspawn::net4)]
    pub local_address: Option<ipnet::Ipv4Net>,
    /// IPv6 address of the container's end.
    #[arg(long, value_name = "ADDRESS[/PREFIX]", value_parser = nspawn::net6)]
    pub local_address6: Option<ipnet::Ipv6Net>,
    /// Who translates the container's addresses.
    #[command(flatten)]
    pub nat: NatArg,
}

/// Options of `start`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StartArgs {
    /// The container: /etc/nixos-containers/NAME.conf and /etc/nixrun/NAME.json configure it, or one of the two.
    pub name: String,
    /// Who translates the container's addresses.
    #[command(flatten)]
    pub nat: NatArg,
    /// Give up, and end the container, when it is not ready after so long; startTimeout of its configuration or 60
    /// when not given, and for a systemd unit its TimeoutStartSec=.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Options of `stop`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StopArgs {
    /// The container.
    pub name: String,
    /// Kill what is still there after so long; a systemd unit's TimeoutStopSec= may come first.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub timeout: u64,
}

/// Options of `kill`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct KillArgs {
    /// The container.
    pub name: String,
    /// Send this signal to PID 1 instead of killing every process.
    #[arg(short, long, value_name = "SIGNAL", value_parser = nspawn::signal)]
    pub signal: Option<i32>,
}

/// Options of `list`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `status`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StatusArgs {
    /// The container.
    pub name: String,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ExecArgs {
    /// The container.
    pub name: String,
    /// Set a variable for the command; without a value, to what it is here.
    #[arg(short = 'E', long, value_name = "KEY[=VALUE]", value_parser = nspawn::setenv)]
    pub setenv: Vec<nspawn::SetEnv>,
    /// Working directory of the command.
    #[arg(long, value_name = "PATH", value_parser = nspawn::inside)]
    pub chdir: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Options of `plan`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PlanArgs {
    /// The container: /etc/nixos-containers/NAME.conf and /etc/nixrun/NAME.json configure it, or one of the two.
    #[arg(required_unless_present = "nspawn", conflicts_with = "nspawn")]
    pub name: Option<String>,
    /// Plan a command line of systemd-nspawn, which follows after `--`, instead of a configured container.
    #[arg(long)]
    pub nspawn: bool,
    /// Who translates the container's addresses.
    #[command(flatten)]
    pub nat: NatArg,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
    /// With --nspawn: options, root and command as systemd-nspawn takes them.
    #[arg(last = true, requires = "nspawn", value_name = "NSPAWN_OPTIONS")]
    pub words: Vec<OsString>,
}

fn keep(text: &str) -> Result<Restart, String> {
    [Restart::OnFailure, Restart::Always]
        .into_iter()
        .find(|policy| keeper::word(*policy) == text)
        .ok_or_else(|| "on-failure or always".to_owned())
}

/// Whom the output is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct Format {
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// clap's message: for a person on stderr, or the help or version that was asked for on stdout
/// ([`clap::Error::use_stderr`]).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = args.get(1).and_then(|name| name.to_str());
    let mut invocation = match command.and_then(|name| parse_only(name, &args[1..])) {
        Some(invocation) => invocation,
        None => whole::parse(&args)?,
    };
    if let Command::Run(run) = &mut invocation.command {
        run.settle(&args)
            .map_err(|problem| clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, problem))?;
    }
    Ok(invocation)
}

/// One command with the options that every command has, and nothing else.
#[derive(Parser)]
struct Only<A: Args> {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    args: A,
}

/// The invocation, if `name` is a command and its arguments are right.
fn parse_only(name: &str, args: &[OsString]) -> Option<Invocation> {
    match name {
        "create" => only(args, |args| Command::Create(Box::new(args))),
        "update" => only(args, |args| Command::Update(Box::new(args))),
        "destroy" => only(args, Command::Destroy),
        "boot" => only(args, Command::Boot),
        "run" => only(args, |args| Command::Run(Box::new(args))),
        "start" => only(args, Command::Start),
        "stop" => only(args, Command::Stop),
        "kill" => only(args, Command::Kill),
        "list" => only(args, Command::List),
        "status" => only(args, Command::Status),
        "exec" => only(args, Command::Exec),
        "plan" => only(args, Command::Plan),
        "reclaim" => only(args, Command::Reclaim),
        "doctor" => only(args, Command::Doctor),
        "schema" => only(args, Command::Schema),
        "restart" => only(args, Command::Restart),
        "reload" => only(args, Command::Reload),
        "set" => only(args, Command::Set),
        "show-ip" => only(args, Command::ShowIp),
        "logs" => only(args, Command::Logs),
        "stats" => only(args, Command::Stats),
        "metrics" => only(args, Command::Metrics),
        _ => None,
    }
}

fn only<A: Args>(args: &[OsString], command: fn(A) -> Command) -> Option<Invocation> {
    let Only { global, args } = Only::<A>::try_parse_from(args).ok()?;
    Some(Invocation { global, command: command(args) })
}

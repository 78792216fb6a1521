//! One option's value into [`Asked`].

use std::path::Path;

use netsetup::{ExtraVeth, MovedLink, SubLink};
use runtime::{CapSet, JournalLink, LinkJournal, Ownership, PivotRoot, UserNamespace, Volatile};

use super::asked::{Asked, ConsoleMode, CredentialSource, SettingsMode, Start};
use super::mounts;
use super::options::{Id, Judgement, entry};
use super::values;
use super::words::{CONSOLE, LINK_JOURNAL, OWNERSHIP, RESOLV_CONF, TIMEZONE, VOLATILE, lines, word, yes_no};
use crate::{configured, forward, nspawn, quantity, rlimit, signals};

/// Why reading options ends before they make a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// This was asked for instead: text for stdout.
    Print(String),
    /// One sentence.
    Fault(String),
}

impl From<String> for Stop {
    fn from(sentence: String) -> Stop {
        Stop::Fault(sentence)
    }
}

type Done = Result<(), Stop>;

impl Asked {
    /// Takes an option over; a flag has no value. `here` is where relative paths begin.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn set(&mut self, id: Id, value: Option<&str>, here: &Path) -> Result<(), Stop> {
        self.set_value(id, value.unwrap_or_default(), value.is_some(), here)?;
        if let Some(setting) = entry(id).setting {
            self.given.add(setting);
        }
        Ok(())
    }

    #[allow(clippy::too_many_lines, reason = "a table: one line or two for each option")]
    fn set_value(&mut self, id: Id, text: &str, present: bool, here: &Path) -> Done {
        let path = || (!text.is_empty()).then(|| nspawn::absolute(text, here));
        match id {
            Id::Help => return Err(Stop::Print(String::new())),
            Id::Version => return Err(Stop::Print(version())),
            Id::Quiet => self.quiet = true,
            Id::NoPager | Id::Parameters => {}
            Id::Settings => self.settings = settings_mode(text)?,
            Id::Cleanup => self.cleanup = true,
            Id::Directory => self.directory = path(),
            Id::Template => self.template = path(),
            Id::Image => self.image = path(),
            Id::Ephemeral => self.ephemeral = true,
            Id::ReadOnly => self.read_only = true,
            Id::Volatile if !present => self.volatile = Volatile::Yes,
            Id::Volatile => {
                self.volatile =
                    word(VOLATILE, text, || format!("Failed to parse --volatile= argument: {text}"))?;
            }
            Id::PivotRoot => self.pivot_root = Some(pivot_root(text)?),
            Id::AsPid2 => self.begin(Start::Pid2)?,
            Id::Boot => self.begin(Start::Boot)?,
            Id::Chdir => self.chdir = Some(chdir(text)?),
            Id::Setenv => self.variable(text)?,
            Id::User => self.user = Some(text.to_owned()),
            Id::KillSignal => self.kill_signal = Some(kill_signal(text)?),
            Id::NotifyReady => {
                self.notify_ready = nspawn::boolean(text)
                    .map_err(|right| format!("{text} is not a valid notify mode: {right}"))?;
            }
            Id::SuppressSync => self.suppress_sync = Some(boolean("--suppress-sync=", text)?),
            Id::Machine => self.machine = host_name("machine name", text)?,
            Id::Hostname => self.hostname = host_name("hostname", text)?,
            Id::Uuid => self.uuid = Some(uuid(text)?),
            Id::Slice => self.slice = Some(slice(text)?),
            Id::Property => self.properties.push(text.to_owned()),
            Id::Register => self.register = Some(boolean("--register=", text)?),
            Id::KeepUnit => self.keep_unit = true,
            Id::PrivateUsers if !present => self.users = Some(UserNamespace::OfRoot),
            Id::PrivateUsers => {
                let users = values::private_users(text);
                self.users =
                    Some(users.map_err(|right| format!("Failed to parse UID {text:?}: expected {right}"))?);
            }
            Id::PrivateUsersChown => self.ownership = Some(Ownership::Chown),
            Id::PrivateUsersOwnership => {
                let fault = || format!("Cannot parse --private-users-ownership= value: {text}");
                self.ownership = Some(word(OWNERSHIP, text, fault)?);
            }
            Id::PickUsers => self.users = Some(UserNamespace::Pick),
            Id::PrivateNetwork
            | Id::NetworkInterface
            | Id::NetworkMacvlan
            | Id::NetworkIpvlan
            | Id::NetworkVeth
            | Id::NetworkVethExtra
            | Id::NetworkBridge
            | Id::NetworkZone
            | Id::NetworkNamespacePath => self.set_network(id, text, here)?,
            Id::Port => self.port(text)?,
            Id::Capability => self.capability = self.capability.union(capabilities(text)?),
            Id::DropCapability => self.drop_capability = self.drop_capability.union(capabilities(text)?),
            Id::AmbientCapability => {
                self.ambient_capability = self.ambient_capability.union(capabilities(text)?);
            }
            Id::NoNewPrivileges => self.no_new_privileges = boolean("--no-new-privileges=", text)?,
            Id::SystemCallFilter => self.system_calls(text),
            Id::ShareSystem => self.share_system = true,
            Id::Rlimit => self.limit(text)?,
            Id::OomScoreAdjust => {
                let fault = |right| {
                    format!("Failed to parse --oom-score-adjust= parameter: {text}; expected {right}")
                };
                self.oom_score_adjust = Some(values::oom_score(text).map_err(fault)?);
            }
            Id::CpuAffinity => {
                let right = "numbers and ranges of CPUs, such as 0-3,7";
                let fault = || format!("Failed to parse CPU affinity mask {text}: expected {right}");
                let cpus = quantity::cpus(text).ok_or_else(fault)?;
                self.cpu_affinity = (!cpus.is_empty()).then_some(cpus);
            }
            Id::Personality => {
                let fault = |right| format!("Unknown or unsupported personality '{text}'; expected {right}.");
                self.personality = Some(values::personality(text).map_err(fault)?);
            }
            Id::ResolvConf => {
                let mode = word(RESOLV_CONF, yes_no(text), || {
                    format!("Failed to parse /etc/resolv.conf mode: {text}")
                });
                self.resolv_conf = Some(mode?);
            }
            Id::Timezone => {
                let mode =
                    word(TIMEZONE, yes_no(text), || format!("Failed to parse /etc/localtime mode: {text}"));
                self.timezone = Some(mode?);
            }
            Id::LinkJournal => {
                let fault = || format!("Failed to parse link journal mode {text}");
                self.link_journal = Some(word(LINK_JOURNAL, text, fault)?);
            }
            Id::TryGuestJournal => {
                self.link_journal = Some(LinkJournal { mode: JournalLink::Guest, optional: true });
            }
            Id::Bind | Id::BindRo => self.mounts.push(mounts::bind(text, id == Id::BindRo, here)?),
            Id::Inaccessible => self.mounts.push(mounts::inaccessible(text)?),
            Id::Tmpfs => self.mounts.push(mounts::tmpfs(text)?),
            Id::Overlay | Id::OverlayRo => {
                self.mounts.push(mounts::overlay(text, id == Id::OverlayRo, here)?)
            }
            Id::Console => {
                self.console = Some(word(CONSOLE, text, || format!("Unknown console mode: {text}"))?);
            }
            Id::Pipe => self.console = Some(ConsoleMode::Pipe),
            Id::Background if text.is_empty() => {}
            Id::SetCredential => self.set_credential(text)?,
            Id::LoadCredential => self.load_credential(text)?,
            Id::ImagePolicy
            | Id::OciBundle
            | Id::RootHash
            | Id::RootHashSig
            | Id::VerityData
            | Id::SelinuxContext
            | Id::SelinuxApifsContext
            | Id::BindUser
            | Id::BindUserShell
            | Id::Background => return Err(refused(id, text)),
        }
        Ok(())
    }

    fn begin(&mut self, start: Start) -> Done {
        if self.start != Start::Pid1 && self.start != start {
            return Err("--boot and --as-pid2 may not be combined.".to_owned().into());
        }
        self.start = start;
        Ok(())
    }

    fn variable(&mut self, text: &str) -> Done {
        let (name, value) = values::variable(text)
            .map_err(|right| format!("Cannot assign environment variable {text}: expected {right}"))?;
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value));
        Ok(())
    }

    fn set_network(&mut self, id: Id, text: &str, here: &Path) -> Done {
        let network = &mut self.network;
        let wrong = |what: &str| {
            let what = what.to_owned();
            move |right| format!("{what} name not valid: {text}; {right}.")
        };
        match id {
            Id::NetworkInterface => {
                let (host_link, container_link) =
                    values::link_pair(text).map_err(wrong("Network interface"))?;
                network.interfaces.push(MovedLink { host_link, container_link });
            }
            Id::NetworkMacvlan => {
                let (parent, container_link) =
                    values::link_pair(text).map_err(wrong("MACVLAN network interface"))?;
                network.macvlans.push(SubLink { parent, container_link });
            }
            Id::NetworkIpvlan => {
                let (parent, container_link) =
                    values::link_pair(text).map_err(wrong("IPVLAN network interface"))?;
                network.ipvlans.push(SubLink { parent, container_link });
            }
            Id::NetworkVeth => network.veth = Some(true),
            Id::NetworkVethExtra => {
                let fault =
                    |right| format!("Failed to parse --network-veth-extra= parameter: {text}; {right}.");
                let (host_link, container_link) = values::link_pair(text).map_err(fault)?;
                let container_link = container_link.unwrap_or_else(|| host_link.clone());
                network.extra_veths.push(extra_veth(host_link, container_link));
            }
            Id::NetworkBridge => {
                network.bridge = Some(values::link(text).map_err(wrong("Bridge interface"))?);
            }
            Id::NetworkZone => {
                let fault = |right| format!("Network zone name not valid: vz-{text}; {right}.");
                network.zone = Some(values::link(&format!("vz-{text}")).map_err(fault)?);
            }
            Id::NetworkNamespacePath => {
                network.namespace_path = (!text.is_empty()).then(|| nspawn::absolute(text, here));
            }
            _ => network.private = Some(true),
        }
        Ok(())
    }

    fn port(&mut self, text: &str) -> Done {
        let port = forward::parse(text)
            .map_err(|right| format!("Failed to parse host port {text}: expected {right}"))?;
        if self.ports.iter().any(|known| forward::overlap(known, &port)) {
            let advice = "give each port of the host once";
            return Err(format!("Duplicate port specification: {text}; {advice}").into());
        }
        self.ports.push(port);
        Ok(())
    }

    fn system_calls(&mut self, text: &str) {
        let (list, items) = match text.strip_prefix('~') {
            Some(items) => (&mut self.system_calls.deny, items),
            None => (&mut self.system_calls.allow, text),
        };
        list.extend(items.split_whitespace().map(str::to_owned));
    }

    fn limit(&mut self, text: &str) -> Done {
        if text == "help" {
            return Err(Stop::Print(lines(rlimit::names())));
        }
        let Some((name, value)) = text.split_once('=') else {
            return Err("--rlimit= expects an '=' assignment, such as NOFILE=1024:4096.".to_owned().into());
        };
        let unknown = || format!("Unknown resource limit: {name}; --rlimit=help lists those that there are.");
        let name = rlimit::name(name).ok_or_else(unknown)?;
        let limit = rlimit::limit(name, value)
            .map_err(|right| format!("Failed to parse resource limit: {value}; expected {right}"))?;
        self.limits.retain(|known| known.name != limit.name);
        self.limits.push(limit);
        Ok(())
    }

    fn set_credential(&mut self, text: &str) -> Done {
        let option = "--set-credential=";
        let (id, value) = credential(option, text)?;
        let value = values::c_unescape(value)
            .map_err(|right| format!("Failed to unescape credential '{id}' of {option}: expected {right}"))?;
        self.credential(id, CredentialSource::Value(value))
    }

    fn load_credential(&mut self, text: &str) -> Done {
        let (id, from) = credential("--load-credential=", text)?;
        let source = if Path::new(from).is_absolute() {
            CredentialSource::File(from.into())
        } else {
            let fault = |_| {
                format!(
                    "Source credential path of --load-credential= is not valid: {from}; \
                                     expected an absolute path, or the name of a credential that was passed to us"
                )
            };
            CredentialSource::Inherited(values::credential_name(from).map_err(fault)?)
        };
        self.credential(id, source)
    }

    fn credential(&mut self, id: String, source: CredentialSource) -> Done {
        if self.credentials.iter().any(|(known, _)| *known == id) {
            return Err(format!("Duplicate credential '{id}', refusing.").into());
        }
        self.credentials.push((id, source));
        Ok(())
    }
}

/// The first line is in systemd's form, for programs that read which version's options there are.
fn version() -> String {
    let ours = env!("CARGO_PKG_VERSION");
    format!("systemd 256 (256-nixrun{ours})\nnixrun {ours}, in place of systemd-nspawn\n")
}

/// Why an option is not taken.
fn refused(id: Id, text: &str) -> Stop {
    let entry = entry(id);
    let why = match entry.judgement {
        Judgement::Refused(why) => why,
        Judgement::Same | Judgement::Better(_) | Judgement::Except(_) => "",
    };
    Stop::Fault(format!("Cannot use --{}={text}: {why}.", entry.long))
}

fn boolean(option: &str, text: &str) -> Result<bool, Stop> {
    let fault = |right| format!("Failed to parse boolean argument to {option}: {text}; {right}.");
    Ok(nspawn::boolean(text).map_err(fault)?)
}

fn settings_mode(text: &str) -> Result<SettingsMode, Stop> {
    match (nspawn::boolean(text), text) {
        (Ok(true), _) => Ok(SettingsMode::Yes),
        (Ok(false), _) => Ok(SettingsMode::No),
        (_, "override") => Ok(SettingsMode::Override),
        (_, "trusted") => Ok(SettingsMode::Trusted),
        _ => Err(format!(
            "Failed to parse --settings= argument: {text}; expected yes, no, override or trusted."
        )
        .into()),
    }
}

fn pivot_root(text: &str) -> Result<PivotRoot, Stop> {
    let fault = |right: String| format!("Failed to parse --pivot-root= argument {text}: expected {right}");
    let form = || "NEW or NEW:OLD, two absolute paths".to_owned();
    let (words, rest) = nspawn::colons(text, 2).map_err(|_| fault(form()))?;
    if rest.is_some() {
        return Err(fault(form()).into());
    }
    let path = |word: &String| nspawn::inside(word).map_err(|_| fault(form()));
    let new = words.first().map(path).transpose()?.ok_or_else(|| fault(form()))?;
    Ok(PivotRoot { new, old: words.get(1).map(path).transpose()? })
}

fn chdir(text: &str) -> Result<std::path::PathBuf, Stop> {
    if !text.starts_with('/') {
        return Err(format!("Working directory {text} is not an absolute path.").into());
    }
    let fault = |_| format!("Working directory path is not normalized: {text}; write it without ..");
    let path = nspawn::inside(text).map_err(fault)?;
    if ["/proc", "/sys", "/dev"].iter().any(|api| path.starts_with(api)) {
        let advice = "choose a directory outside of /proc, /sys and /dev";
        return Err(format!("Working directory is below API VFS, refusing: {text}; {advice}").into());
    }
    Ok(path)
}

fn kill_signal(text: &str) -> Result<i32, Stop> {
    if text == "help" {
        let numbers = (1..32).chain(signals::SIGRTMIN..=signals::SIGRTMAX);
        return Err(Stop::Print(numbers.map(|number| format!("{}\n", signals::name(number))).collect()));
    }
    Ok(signals::parse(text).map_err(|right| format!("Cannot parse signal: {text}; expected {right}"))?)
}

fn host_name(what: &str, text: &str) -> Result<Option<String>, Stop> {
    if text.is_empty() {
        return Ok(None);
    }
    let right = "letters, digits, dots and dashes, at most 64 of them";
    configured::check_name(text).map_err(|_| format!("Invalid {what}: {text}; expected {right}"))?;
    Ok(Some(text.to_owned()))
}

fn uuid(text: &str) -> Result<[u8; 16], Stop> {
    if !text.is_empty() && text.chars().all(|c| c == '0' || c == '-') && text.len() >= 32 {
        return Err("Machine UUID may not be all zeroes.".to_owned().into());
    }
    Ok(nspawn::uuid(text).map_err(|right| format!("Invalid UUID: {text}; {right}"))?)
}

/// A slice's name, with `.slice` at its end.
fn slice(text: &str) -> Result<String, Stop> {
    let bare = text.strip_suffix(".slice").unwrap_or(text);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:\\@".contains(c);
    if bare.is_empty() || bare.len() > 240 || !bare.chars().all(fits) {
        let right = "the name of a slice unit, such as machine.slice";
        return Err(format!("Invalid slice name: {text}; expected {right}").into());
    }
    Ok(format!("{bare}.slice"))
}

fn capabilities(text: &str) -> Result<CapSet, Stop> {
    if text.split(',').any(|name| name == "help") {
        let names =
            CapSet::ALL.iter().map(|capability| format!("{}\n", capability.to_string().to_lowercase()));
        return Err(Stop::Print(names.collect()));
    }
    let advice = "expected names of capabilities(7) with commas between, all or help";
    Ok(CapSet::parse(text).map_err(|_| format!("Failed to parse capability {text}; {advice}."))?)
}

fn credential<'a>(option: &str, text: &'a str) -> Result<(String, &'a str), Stop> {
    let Some((name, _)) = text.split_once(':') else {
        return Err(
            format!("Missing value for {option}: {text}; expected ID, a colon, and the value.").into()
        );
    };
    let fault = |right| format!("Credential name is not valid: {name}; expected {right}.");
    Ok(values::credential(text).map_err(fault)?)
}

fn extra_veth(host_link: String, container_link: String) -> ExtraVeth {
    ExtraVeth {
        host_link,
        container_link,
        bridge: None,
        up: false,
        host_address: None,
        host_address6: None,
        local_address: None,
        local_address6: None,
    }
}

//! What is configured about one container, from both of its files: `NAME.conf`, which nixpkgs' module and
//! `nixos-container` write, and `/etc/nixrun/NAME.json`, which has a key for everything.
//!
//! Either file is enough. Where both say something they must agree: the JSON adds to what the other says, and neither
//! silently wins. Lists (forwards, links) are joined.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use netsetup::{Forward, Protocol};
use runtime::{HostPaths, ResolvConf, UserNamespace};

use crate::configured::{self, Files, FindError};
use crate::forward;
use crate::json::{
    self, AbsolutePath, Document, ForwardPort, Ipv4Host, Ipv4Local, Ipv6Host, Ipv6Local, JsonError, Link,
    LinkPair, ListenAddress, Mac, ProtocolWord, ResolvConfWord, UsersValue,
};
use crate::nixos_conf::{self, ConfError, LinkName, NixosConf, PrivateUsers};

/// A setting, by its names in both files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Path in the JSON.
    pub json: &'static str,
    /// Key in NAME.conf; empty when it has none.
    pub conf: &'static str,
}

macro_rules! keys {
    ($($name:ident = $json:literal, $conf:literal;)+) => {
        $(pub(crate) const $name: Key = Key { json: $json, conf: $conf };)+
        /// All of them.
        pub(crate) const KEYS: &[Key] = &[$($name),+];
    };
}

keys! {
    SYSTEM = "system", "SYSTEM_PATH";
    FLAKE = "system", "FLAKE";
    PRIVATE_NETWORK = "privateNetwork", "PRIVATE_NETWORK";
    HOST_BRIDGE = "hostBridge", "HOST_BRIDGE";
    FORWARD_PORTS = "forwardPorts", "HOST_PORT";
    HOST_ADDRESS = "hostAddress", "HOST_ADDRESS";
    HOST_ADDRESS6 = "hostAddress6", "HOST_ADDRESS6";
    LOCAL_ADDRESS = "localAddress", "LOCAL_ADDRESS";
    LOCAL_ADDRESS6 = "localAddress6", "LOCAL_ADDRESS6";
    LOCAL_MAC_ADDRESS = "localMacAddress", "LOCAL_MAC_ADDRESS";
    NETWORK_NAMESPACE = "networkNamespace", "NETWORK_NAMESPACE_PATH";
    PRIVATE_USERS = "privateUsers", "PRIVATE_USERS";
    INTERFACES = "interfaces", "INTERFACES";
    MACVLANS = "macvlans", "MACVLANS";
    RESOLV_CONF = "resolvConf", "COPY_RESOLV_CONF";
    AUTO_START = "autoStart", "AUTO_START";
    EXTRA_FLAGS = "", "EXTRA_NSPAWN_FLAGS";
}

/// Both files in one.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What they say together; for what only NAME.conf has, `conf`.
    pub document: Document,
    /// NAME.conf.
    pub conf: Option<NixosConf>,
    /// The path of the JSON file, if there is one.
    pub json: Option<PathBuf>,
}

/// Why the settings of a container cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// There are none.
    #[error(transparent)]
    Find(#[from] FindError),
    /// NAME.conf.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// The JSON file.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// They contradict each other.
    #[error("{conf} contradicts {json}{detail}; make them agree, or remove one")]
    Contradiction {
        /// Place and key in NAME.conf.
        conf: String,
        /// File and key of the JSON.
        json: String,
        /// The two values.
        detail: String,
    },
}

impl Settings {
    /// Reads what configures container `name`.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn read(name: &str, host: &HostPaths) -> Result<Settings, SettingsError> {
        let Files { conf, json } = configured::find(name, host)?;
        let conf = conf.map(|file| nixos_conf::read(&file)).transpose()?;
        let json = json.map(|file| json::read(&file)).transpose()?.flatten();
        Settings::merge(conf, json)
    }

    /// Puts both files together.
    ///
    /// # Errors
    /// [`SettingsError::Contradiction`].
    pub fn merge(conf: Option<NixosConf>, json: Option<json::Json>) -> Result<Settings, SettingsError> {
        let (file, document) = match json {
            Some(json) => (Some(json.file), json.document),
            None => (None, Document::default()),
        };
        let mut settings = Settings { document, conf: None, json: file };
        if let Some(conf) = conf {
            settings.add(&conf)?;
            settings.conf = Some(conf);
        }
        Ok(settings)
    }

    fn add(&mut self, conf: &NixosConf) -> Result<(), SettingsError> {
        let Settings { document, json, .. } = self;
        let both = Both { conf, json: json.as_deref() };
        let path = |path: &Option<PathBuf>| path.clone().map(AbsolutePath);
        both.join(SYSTEM, path(&conf.system_path), &mut document.system)?;
        both.join(PRIVATE_NETWORK, conf.private_network.then_some(true), &mut document.private_network)?;
        both.join(HOST_BRIDGE, conf.host_bridge.clone().map(Link), &mut document.host_bridge)?;
        both.join(HOST_ADDRESS, conf.host_address.map(Ipv4Host), &mut document.host_address)?;
        both.join(HOST_ADDRESS6, conf.host_address6.map(Ipv6Host), &mut document.host_address6)?;
        both.join(LOCAL_ADDRESS, conf.local_address.map(Ipv4Local), &mut document.local_address)?;
        both.join(LOCAL_ADDRESS6, conf.local_address6.map(Ipv6Local), &mut document.local_address6)?;
        both.join(LOCAL_MAC_ADDRESS, conf.local_mac_address.map(Mac), &mut document.local_mac_address)?;
        both.join(NETWORK_NAMESPACE, path(&conf.network_namespace_path), &mut document.network_namespace)?;
        // The module writes PRIVATE_USERS=no for a container that has not asked.
        let users =
            (conf.private_users != PrivateUsers::No).then(|| UsersValue(conf.private_users.namespace()));
        both.join(PRIVATE_USERS, users, &mut document.private_users)?;
        let resolv_conf = match (conf.copy_resolv_conf, document.resolv_conf) {
            // That it has the host's name servers, or not from there; the JSON may say how.
            (Some(true), Some(ResolvConfWord(how))) if takes_over(how) => Some(how),
            (Some(true), _) => Some(ResolvConf::ReplaceFollow),
            (Some(false), None) => Some(ResolvConf::Off),
            _ => None,
        };
        both.join(RESOLV_CONF, resolv_conf.map(ResolvConfWord), &mut document.resolv_conf)?;
        both.join(AUTO_START, conf.auto_start.then_some(true), &mut document.auto_start)?;
        both.links(INTERFACES, &conf.interfaces, &mut document.interfaces)?;
        both.links(MACVLANS, &conf.macvlans, &mut document.macvlans)?;
        both.forwards(&conf.host_port, &mut document.forward_ports)
    }

    /// Where a setting comes from, for a message: `FILE:LINE: KEY` or `FILE: KEY`.
    #[must_use]
    pub fn place(&self, key: Key) -> String {
        let conf = self.conf.as_ref().filter(|_| !key.conf.is_empty());
        match (conf, &self.json) {
            // Named there, or named nowhere and this the file that the user knows.
            (Some(conf), json) if conf.line_of(key.conf).is_some() || json.is_none() => {
                in_conf(conf, key.conf)
            }
            (_, Some(json)) => in_json(json, key),
            (_, None) => key.json.to_owned(),
        }
    }

    /// The name of a setting for advice about it: the one of the file that there is.
    #[must_use]
    pub fn name(&self, key: Key) -> &'static str {
        if self.conf.is_some() && !key.conf.is_empty() { key.conf } else { key.json }
    }

    /// Whether the settings come from `/etc/containers`, where NixOS before 22.05 keeps them.
    #[must_use]
    pub fn old_directories(&self) -> bool {
        let parent = self.conf.as_ref().and_then(|conf| conf.file.parent()).and_then(Path::file_name);
        parent.is_some_and(|directory| directory == "containers")
    }
}

/// Whether this leaves the container with name servers of the host in any case.
fn takes_over(mode: ResolvConf) -> bool {
    !matches!(mode, ResolvConf::Off | ResolvConf::Delete | ResolvConf::Auto)
}

fn in_conf(conf: &NixosConf, key: &str) -> String {
    let line = conf.line_of(key).map(|line| format!(":{line}")).unwrap_or_default();
    format!("{}{line}: {key}", conf.file.display())
}

fn in_json(file: &Path, key: Key) -> String {
    format!("{}: {}", file.display(), key.json)
}

/// What joins the two files.
struct Both<'a> {
    conf: &'a NixosConf,
    json: Option<&'a Path>,
}

impl Both<'_> {
    fn contradiction(&self, key: Key, detail: String) -> SettingsError {
        let json = self.json.map(|file| in_json(file, key)).unwrap_or_default();
        SettingsError::Contradiction { conf: in_conf(self.conf, key.conf), json, detail }
    }

    fn join<T: PartialEq>(
        &self,
        key: Key,
        conf: Option<T>,
        json: &mut Option<T>,
    ) -> Result<(), SettingsError> {
        match (conf, &json) {
            (Some(conf), Some(json)) if conf != *json => Err(self.contradiction(key, String::new())),
            (Some(conf), None) => {
                *json = Some(conf);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A link may be named in both, with the same name inside.
    fn links(
        &self,
        key: Key,
        conf: &[LinkName],
        json: &mut Option<Vec<LinkPair>>,
    ) -> Result<(), SettingsError> {
        let mut all: Vec<LinkPair> = conf.iter().cloned().map(LinkPair).collect();
        for new in json.take().unwrap_or_default() {
            match all.iter().find(|known| known.0.host == new.0.host) {
                Some(known) if *known != new => {
                    return Err(self.contradiction(key, format!(" about {}", new.0.host)));
                }
                Some(_) => {}
                None => all.push(new),
            }
        }
        *json = (!all.is_empty()).then_some(all);
        Ok(())
    }

    /// The same forward may be in both; two for one port may not.
    fn forwards(&self, conf: &[Forward], json: &mut Option<Vec<ForwardPort>>) -> Result<(), SettingsError> {
        let mut all: Vec<ForwardPort> = conf.iter().map(port).collect();
        let of_conf = all.len();
        for new in json.take().unwrap_or_default() {
            let forward = forward_of(&new);
            let same = all[..of_conf].iter().map(forward_of).any(|known| known == forward);
            let clash = all[..of_conf].iter().map(forward_of).any(|known| forward::overlap(&known, &forward));
            if clash && !same {
                return Err(self.contradiction(FORWARD_PORTS, format!(" about port {}", new.host_port)));
            }
            if !same {
                all.push(new);
            }
        }
        *json = (!all.is_empty()).then_some(all);
        Ok(())
    }
}

fn port(forward: &Forward) -> ForwardPort {
    ForwardPort {
        protocol: Some(ProtocolWord(forward.protocol)),
        host_address: forward.host_address.map(ListenAddress),
        host_port: forward.host_port,
        container_port: Some(forward.container_port),
    }
}

/// A forward with what it does not say filled in.
pub(crate) fn forward_of(port: &ForwardPort) -> Forward {
    Forward {
        protocol: port.protocol.map_or(Protocol::Tcp, |word| word.0),
        host_address: port.host_address.as_ref().map(|address| address.0),
        host_port: port.host_port,
        container_port: port.container_port.unwrap_or(port.host_port),
    }
}

impl Document {
    /// The user namespace.
    #[must_use]
    pub fn users(&self) -> UserNamespace {
        self.private_users.map_or(UserNamespace::Host, |value| value.0)
    }
}

//! `/etc/nixrun.json`: what holds for every container of this host. The file need not be there.

use std::io;
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use runtime::HostPaths;
use schemars::JsonSchema;
use serde::Deserialize;

/// The file.
const FILE: &str = "/etc/nixrun.json";

/// What holds for every container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostSettings {
    /// Where `create` takes IPv4 addresses from, two of each /24: 10.233.0.0/16 when not set.
    #[schemars(with = "String")]
    pub address_pool: Ipv4Net,
    /// Where `create` takes IPv6 addresses from: a ULA prefix, or none when not set.
    #[schemars(with = "Option<String>")]
    pub address_pool6: Option<Ipv6Net>,
    /// How many containers may be starting at the same time; twice the number of CPUs when not set.
    pub start_jobs: Option<u32>,
    /// Whether configured containers with addresses are known as NAME.containers, in the host's /etc/hosts and in those
    /// of other containers: true when not set.
    pub hosts_file: bool,
}

impl Default for HostSettings {
    fn default() -> Self {
        let pool = Ipv4Net::new_assert([10, 233, 0, 0].into(), 16);
        HostSettings { address_pool: pool, address_pool6: None, start_jobs: None, hosts_file: true }
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostSettingsError {
    /// It could not be read.
    #[error("cannot read the host's settings in {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says something wrong.
    #[error("{}:{source}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What.
        source: serde_json::Error,
    },
}

impl HostSettings {
    /// Reads the file; what it does not set has its default.
    ///
    /// # Errors
    /// [`HostSettingsError`].
    pub fn read(paths: &HostPaths) -> Result<HostSettings, HostSettingsError> {
        let file = paths.join(FILE);
        match std::fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HostSettings::default()),
            Err(source) => Err(HostSettingsError::Read { file, source }),
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|source| HostSettingsError::Wrong { file, source })
            }
        }
    }

    /// How many containers may be starting at the same time.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.start_jobs.map_or_else(|| 2 * cpus(), |jobs| jobs.max(1) as usize)
    }
}

/// How many CPUs we may run on, by one system call: std's way reads the quotas of every group above us, too.
fn cpus() -> usize {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    set.map_or(1, |set| (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_has_its_default_and_an_unknown_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        assert_eq!(HostSettings::read(&paths).unwrap(), HostSettings::default());
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let file = dir.path().join("etc/nixrun.json");
        std::fs::write(&file, r#"{"addressPool6": "fd12:3456:789a::/48", "startJobs": 3}"#).unwrap();
        let read = HostSettings::read(&paths).unwrap();
        assert_eq!((read.jobs(), read.address_pool.to_string().as_str()), (3, "10.233.0.0/16"));
        std::fs::write(&file, r#"{"pool": 1}"#).unwrap();
        let error = HostSettings::read(&paths).unwrap_err().to_string();
        assert!(error.contains("nixrun.json") && error.contains("pool"), "{error}");
    }
}

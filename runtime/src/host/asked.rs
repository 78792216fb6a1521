//! What a plan must know of the host only because its configuration names it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{CgroupFacts, HostPaths, SharedFiles};
use crate::config::{BindSource, ContainerConfig, Device, Mount, Resources};
use crate::devices::DeviceKind;
use crate::error::{Doing, Error};
use crate::sys;

/// Facts about what one configuration names; each is left out where it names nothing of the kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AskedFacts {
    /// The paths that may be device nodes.
    pub nodes: Vec<(PathBuf, Node)>,
    /// The drivers of /proc/devices.
    pub drivers: Vec<Driver>,
    /// Our own `oom_score_adj`.
    pub oom_score_adjust: Option<i32>,
    /// The CPUs that are online.
    pub cpus: Vec<u32>,
    /// Controllers that our group has, and those that it gives to the groups below it.
    pub controllers: Option<Controllers>,
    /// The whole disk below each path, by major and minor number, where there is one.
    pub disks: Vec<(PathBuf, Option<(u32, u32)>)>,
    /// Files that the container takes over.
    pub shared: SharedFiles,
}

/// What is found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// Nothing.
    Missing,
    /// Something else than a device.
    Other,
    /// A device.
    Device {
        /// Whether it is a block device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// A line of /proc/devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Whether it is one of block devices.
    pub block: bool,
    /// Its name.
    pub name: String,
    /// Its devices' major number.
    pub major: u32,
}

/// Controllers of a group, by the kernel's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Controllers {
    /// `cgroup.controllers`.
    pub available: Vec<String>,
    /// `cgroup.subtree_control`.
    pub enabled: Vec<String>,
}

impl AskedFacts {
    /// Looks at what `config` names. Needs no privileges.
    pub(super) fn probe(
        paths: &HostPaths,
        config: &ContainerConfig,
        cgroup: Option<&CgroupFacts>,
    ) -> Result<AskedFacts, Error> {
        let devices = &config.security.devices;
        let shared = SharedFiles::probe(paths, &config.integration, config.network.is_private())?;
        let mut facts = AskedFacts { shared, ..AskedFacts::default() };
        let sources = config.mounts.iter().filter_map(|mount| match mount {
            Mount::Bind { source: BindSource::Host(path), .. } => Some(path),
            _ => None,
        });
        let named = devices.iter().filter_map(|allow| match &allow.device {
            Device::Node(path) => Some(path),
            Device::CharGroup(_) | Device::BlockGroup(_) => None,
        });
        facts.nodes = sources.chain(named).map(|path| (path.clone(), node(path))).collect();
        if devices.iter().any(|allow| !matches!(allow.device, Device::Node(_))) {
            facts.drivers = drivers(&read(&paths.proc("devices"))?);
        }
        if config.execution.oom_score_adjust.is_some() {
            facts.oom_score_adjust = read(&paths.proc("self/oom_score_adj"))?.trim().parse().ok();
        }
        if config.execution.cpu_affinity.is_some() {
            facts.cpus = cpu_list(&read(&paths.sys("devices/system/cpu/online"))?);
        }
        if config.resources != Resources::default() {
            let group = cgroup.map(|facts| facts.delegated.as_ref().unwrap_or(&facts.own));
            facts.controllers = group.map(|group| controllers(group)).transpose()?;
            let disks = config.resources.io_max.iter();
            facts.disks = disks.map(|io| (io.device.clone(), whole_disk(paths, &io.device))).collect();
        }
        Ok(facts)
    }
}

fn read(path: &Path) -> Result<String, Error> {
    sys::fd::read_kernel_file(path).doing(|| format!("read {}", path.display()))
}

fn node(path: &Path) -> Node {
    let Ok(stat) = fs::metadata(path) else { return Node::Missing };
    let (kind, device) = (stat.file_type(), stat.rdev());
    if !kind.is_block_device() && !kind.is_char_device() {
        return Node::Other;
    }
    let (major, minor) = numbers(device);
    Node::Device { block: kind.is_block_device(), major, minor }
}

fn numbers(device: u64) -> (u32, u32) {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    (major as u32, minor as u32)
}

/// /proc/devices: two lists under headings, `  1 mem` a line.
fn drivers(text: &str) -> Vec<Driver> {
    let (mut block, mut found) = (false, Vec::new());
    for line in text.lines() {
        block = block && !line.starts_with("Character") || line.starts_with("Block");
        if let Some((major, name)) = line.trim().split_once(' ')
            && let Ok(major) = major.parse()
        {
            found.push(Driver { block, name: name.trim().to_owned(), major });
        }
    }
    found
}

/// The kernel's notation for sets of CPUs: `0-3,7`.
fn cpu_list(text: &str) -> Vec<u32> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    });
    ranges.flatten().collect()
}

fn controllers(group: &Path) -> Result<Controllers, Error> {
    let words = |name: &str| {
        let text = read(&group.join(name))?;
        Ok::<_, Error>(text.split_whitespace().map(str::to_owned).collect())
    };
    Ok(Controllers { available: words("cgroup.controllers")?, enabled: words("cgroup.subtree_control")? })
}

/// The disk that `path` is a node of, or that its file system lies on. The kernel limits no partition by itself.
fn whole_disk(paths: &HostPaths, path: &Path) -> Option<(u32, u32)> {
    let stat = fs::metadata(path).ok()?;
    let device = if stat.file_type().is_block_device() { stat.rdev() } else { stat.dev() };
    let (major, minor) = numbers(device);
    let entry = fs::canonicalize(paths.sys(&format!("dev/block/{major}:{minor}"))).ok()?;
    if !entry.join("partition").exists() {
        return Some((major, minor));
    }
    let disk = fs::read_to_string(entry.parent()?.join("dev")).ok()?;
    let (major, minor) = disk.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl Driver {
    /// Which of the two lists it stands in.
    pub(crate) fn kind(&self) -> DeviceKind {
        if self.block { DeviceKind::Block } else { DeviceKind::Char }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_stand_under_their_headings() {
        let text =
            "Character devices:\n  1 mem\n  4 /dev/vc/0\n136 pts\n\nBlock devices:\n  7 loop\n259 blkext\n";
        let found: Vec<_> = drivers(text).into_iter().map(|d| (d.block, d.name, d.major)).collect();
        let expected = [
            (false, "mem", 1),
            (false, "/dev/vc/0", 4),
            (false, "pts", 136),
            (true, "loop", 7),
            (true, "blkext", 259),
        ];
        assert_eq!(found, expected.map(|(block, name, major)| (block, name.to_owned(), major)));
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpu_list("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(cpu_list("0\n"), [0]);
        assert!(cpu_list("\n").is_empty());
    }

    #[test]
    fn a_partition_is_its_disks() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path()).with_sys(dir.path().join("sys"));
        let block = dir.path().join("sys/dev/block");
        let part = dir.path().join("sys/devices/vda/vda1");
        fs::create_dir_all(&block).unwrap();
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("partition"), "1\n").unwrap();
        fs::write(part.join("../dev"), "254:0\n").unwrap();
        let (major, minor) = numbers(fs::metadata(dir.path()).unwrap().dev());
        assert_eq!(whole_disk(&paths, dir.path()), None);
        let link = block.join(format!("{major}:{minor}"));
        std::os::unix::fs::symlink(&part, &link).unwrap();
        assert_eq!(whole_disk(&paths, dir.path()), Some((254, 0)));
        fs::remove_file(part.join("partition")).unwrap();
        assert_eq!(whole_disk(&paths, dir.path()), Some((major, minor)));
    }

    #[test]
    fn nodes_are_told_apart() {
        assert_eq!(node(Path::new("/dev/null")), Node::Device { block: false, major: 1, minor: 3 });
        assert_eq!(node(Path::new("/")), Node::Other);
        assert_eq!(node(Path::new("/no/such/path")), Node::Missing);
    }
}

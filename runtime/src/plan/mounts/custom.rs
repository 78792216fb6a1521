//! The mounts that were asked for.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::{Attributes, Layer, MountPlan, Source, UpperLayer, mount, tmpfs};
use crate::config::{BindSource, ContainerConfig, Mount, Store};
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;
use crate::plan::OnHost;

/// As many layers as the child has room for; the kernel takes 500.
pub(crate) const MAX_LAYERS: usize = 64;

pub(super) fn plan(
    mounts: &mut Vec<MountPlan>,
    on_host: &mut Vec<OnHost>,
    config: &ContainerConfig,
    host: &HostFacts,
) -> Result<(), Error> {
    if let Some(Store::Whole(path)) = &config.store {
        let source = Source::HostPath { path: path.clone(), recursive: true, make: true };
        mounts.push(mount("/nix/store", source, Attributes::RO));
    }
    let mut requests: Vec<&Mount> = config.mounts.iter().collect();
    // nspawn's order: what lies below another mount comes after it, and of two on one path the kinds have an order.
    requests.sort_by_key(|request| (request.target(), rank(request)));
    let mut temporary = Temporary { name: &config.name, host, on_host };
    for request in requests {
        check_not_root(request)?;
        check_target(request.target())?;
        mounts.push(one(request, &mut temporary)?);
    }
    Ok(())
}

fn rank(mount: &Mount) -> u8 {
    match mount {
        Mount::Bind { .. } => 0,
        Mount::Tmpfs { .. } => 1,
        Mount::Overlay { .. } => 2,
        Mount::Inaccessible { .. } => 3,
    }
}

fn one(request: &Mount, temporary: &mut Temporary<'_>) -> Result<MountPlan, Error> {
    let (mut attributes, mut own_ids) = (Attributes::NONE, None);
    let source = match request {
        Mount::Bind { source, target, read_only, recursive, ids } => {
            attributes.read_only = *read_only;
            own_ids = Some(*ids);
            let recursive = *recursive;
            match source {
                BindSource::Host(path) => {
                    Source::HostPath { path: absolute(path, target)?, recursive, make: true }
                }
                BindSource::InRoot(path) => Source::InRoot { path: absolute(path, target)?, recursive },
                BindSource::Temporary => {
                    Source::HostPath { path: temporary.make(), recursive: false, make: true }
                }
            }
        }
        Mount::Tmpfs { options, .. } => {
            // nspawn's, which options can add to.
            attributes = Attributes { no_dev: true, strict_atime: true, ..Attributes::NONE };
            let kept: Vec<&str> = options.split(',').filter(|option| !attributes.apply(option)).collect();
            // With options of its own, the mode is up to them; the kernel's is 1777.
            tmpfs(if options.is_empty() { "mode=0755".to_owned() } else { kept.join(",") }.as_str(), vec![])
        }
        Mount::Overlay { lower, upper, target } => {
            attributes.read_only = upper.is_none();
            overlay(lower, upper.as_ref(), target, temporary)?
        }
        Mount::Inaccessible { .. } => {
            attributes.read_only = true;
            Source::Inaccessible
        }
    };
    Ok(MountPlan { target: request.target().to_path_buf(), source, attributes, ids: own_ids })
}

fn overlay(
    lower: &[BindSource],
    upper: Option<&BindSource>,
    target: &Path,
    temporary: &mut Temporary<'_>,
) -> Result<Source, Error> {
    let count = lower.len() + usize::from(upper.is_some());
    let fault = match (lower.len(), upper) {
        (0, _) => "it has no lower directory",
        (1, None) => "one directory alone is no overlay; use a read-only bind mount",
        _ if count > MAX_LAYERS => "it has too many layers",
        _ => "",
    };
    if !fault.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("cannot mount an overlay on {}: {fault}", target.display()),
        ));
    }
    let lower = lower.iter().map(|layer| temporary.layer(layer, target)).collect::<Result<_, _>>()?;
    let upper = upper.map(|layer| temporary.upper(layer, target)).transpose()?;
    Ok(Source::Overlay { lower, upper })
}

/// Names what is made on the host for this container.
struct Temporary<'a> {
    name: &'a str,
    host: &'a HostFacts,
    on_host: &'a mut Vec<OnHost>,
}

impl Temporary<'_> {
    /// An empty directory. It lies within one that only root can enter: /var/tmp is everybody's.
    fn make(&mut self) -> PathBuf {
        let number = self.on_host.len();
        let name = format!("nixrun-{}-{}-{number}", self.name, self.host.token);
        let path = self.host.temporary.join(name);
        self.on_host.push(OnHost::Temporary { path: path.clone() });
        path.join("src")
    }

    fn layer(&mut self, source: &BindSource, target: &Path) -> Result<Layer, Error> {
        Ok(match source {
            BindSource::Host(path) => Layer::Host(absolute(path, target)?),
            BindSource::InRoot(path) => Layer::InRoot(absolute(path, target)?),
            BindSource::Temporary => Layer::Host(self.make()),
        })
    }

    fn upper(&mut self, source: &BindSource, target: &Path) -> Result<UpperLayer, Error> {
        let layer = self.layer(source, target)?;
        let (Layer::Host(path) | Layer::InRoot(path)) = &layer;
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Err(Error::new(
                ErrorKind::Config,
                format!("cannot mount an overlay on {}: a root cannot be its upper layer", target.display()),
            ));
        };
        let mut work = OsString::from(".#");
        work.push(name);
        work.push(".nixrun");
        if let Layer::Host(_) = layer {
            // On the host two containers may write to siblings, and what a crash left must not be in the way.
            work.push(format!("-{}-{}", self.host.token, self.on_host.len()));
            self.on_host.push(OnHost::Work { path: parent.join(&work) });
        }
        Ok(UpperLayer { layer, work })
    }
}

fn absolute(source: &Path, target: &Path) -> Result<PathBuf, Error> {
    if source.is_absolute() {
        return Ok(source.to_path_buf());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "the source {} of the mount on {} is not an absolute path",
            source.display(),
            target.display()
        ),
    ))
}

/// What systemd-nspawn makes the root of (its "custom root mounts") has a name of its own here.
fn check_not_root(request: &Mount) -> Result<(), Error> {
    if !request.target().components().eq([Component::RootDir]) {
        return Ok(());
    }
    let (what, instead) = match request {
        Mount::Bind { source: BindSource::Host(path), .. } => {
            ("a bind mount", format!("name {} as the root directory", path.display()))
        }
        Mount::Bind { .. } => ("a bind mount", "make the root read-only or name another one".to_owned()),
        Mount::Tmpfs { .. } => ("a tmpfs", "make the root volatile".to_owned()),
        Mount::Overlay { .. } => (
            "an overlay",
            "make the root ephemeral, or mount the overlay on the host and name it as the root directory"
                .to_owned(),
        ),
        Mount::Inaccessible { .. } => ("an inaccessible directory", "leave it out".to_owned()),
    };
    let sentence = format!("{what} on / cannot take the place of the container's root directory");
    Err(Error::new(ErrorKind::Config, sentence).hint(instead))
}

pub(super) fn check_target(target: &Path) -> Result<(), Error> {
    let fine = target.is_absolute()
        && target != Path::new("/")
        && target.components().all(|part| !matches!(part, Component::ParentDir));
    if fine {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("{} cannot be a mount point inside the container", target.display()),
    )
    .hint("give an absolute path below / without '..'"))
}

//! The saved machine, and running commands in fresh copies of it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::cache::Cache;
use crate::error::{Error, run};
use crate::machine::{Disks, HARDWARE, KERNEL_ARGUMENTS, Machine};
use crate::qmp::Monitor;
use crate::{disk, image, shell};

/// A cold boot takes six seconds on an idle machine.
const BOOT: Duration = Duration::from_secs(180);

/// The longest a command in the guest may take: `NIXRUN_VM_TIMEOUT` in seconds, or 240.
#[must_use]
pub fn timeout_from_environment() -> Duration {
    let given = std::env::var("NIXRUN_VM_TIMEOUT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(240))
}

/// Machines, ready to be restored.
#[derive(Debug)]
pub struct Runner {
    cache: Cache,
    image: PathBuf,
    snapshot: PathBuf,
}

/// A disk with the files of a run, at /run/t in the guest.
#[derive(Debug)]
pub struct Payload {
    dir: TempDir,
}

/// How a command in the guest ended.
#[derive(Debug)]
pub struct Ended<W> {
    /// Its exit status, as the shell gives it; an error when the machine died or the time was up.
    pub status: Result<u8, Error>,
    /// The writer given, with all that the command had printed.
    pub output: Option<W>,
    /// From asking for the machine to its end.
    pub took: Duration,
}

impl Runner {
    /// Opens the cache and makes what is missing there: the image (needs root), the saved machine.
    ///
    /// # Errors
    /// When a tool is missing or fails, or the machine does not boot.
    pub fn open(cache: Cache) -> Result<Self, Error> {
        image::ensure(&cache)?;
        let image = cache.path("image");
        let inputs = snapshot_inputs(&image)?;
        let snapshot = cache.ensure("snapshot", &inputs, |dir| save(dir, cache.run_directory()?, &image))?;
        Ok(Self { cache, image, snapshot })
    }

    /// The cache it works in.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Makes a payload disk of copies of `files`, each under its own name.
    ///
    /// # Errors
    /// When a file cannot be read or the disk not be made.
    pub fn payload(&self, files: &[PathBuf]) -> Result<Payload, Error> {
        let dir = self.cache.run_directory()?;
        let content = dir.path().join("content");
        fs::create_dir(&content).map_err(Error::file("create", &content))?;
        for file in files {
            let Some(name) = file.file_name() else {
                return Err(Error::Input(format!("{} names no file", file.display())));
            };
            fs::copy(file, content.join(name)).map_err(Error::file("copy", file))?;
        }
        disk::make(&dir.path().join("disk"), &content, &format!("{}k", disk::PAYLOAD_SIZE >> 10))?;
        fs::remove_dir_all(&content).map_err(Error::file("remove", content))?;
        Ok(Payload { dir })
    }

    /// Runs `command` (text for sh, one line, in /run/t) in a fresh machine, for `timeout` at most.
    ///
    /// `closure` is the disk with a container's store (see [`crate::closure`]), when the command needs one.
    ///
    /// # Errors
    /// When the machine cannot be restored. What happens then is in [`Ended::status`].
    pub fn run<W: Write + Send + 'static>(
        &self,
        payload: &Payload,
        closure: Option<&Path>,
        command: &str,
        timeout: Duration,
        output: W,
    ) -> Result<Ended<W>, Error> {
        let begun = Instant::now();
        if command.contains('\n') {
            return Err(Error::Input("a command for the guest must be one line".into()));
        }
        let dir = self.cache.run_directory()?;
        let empty = dir.path().join("closure");
        if closure.is_none() {
            disk::make_empty(&empty, disk::CLOSURE_SIZE)?;
        }
        let disks = Disks {
            root: &self.snapshot.join("root.raw"),
            keep_root: false,
            payload: &payload.dir.path().join("disk"),
            closure: closure.unwrap_or(&empty),
        };
        let (mut machine, _) =
            Machine::start(dir, &self.image, &disks, Some(&self.snapshot.join("state")), output)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        machine.say(&format!("run {now} {command}"))?;
        let status = machine.wait_for("EXIT", timeout);
        let status = status.and_then(|status| {
            let what = format!("gave {status:?} as its result");
            status.parse().map_err(|_| Error::Machine { what, serial: String::new() })
        });
        Ok(Ended { status, output: machine.stop(), took: begun.elapsed() })
    }
}

/// Boots `image` to the point where its agent waits for a command, and saves that machine in `dir`.
fn save(dir: &Path, run_directory: TempDir, image: &Path) -> Result<(), Error> {
    let root = dir.join("root.raw");
    run(
        "copy the root disk",
        Command::new("cp").arg("--sparse=always").arg(image.join("root.ext4")).arg(&root),
    )?;
    let payload = run_directory.path().join("payload");
    let closure = run_directory.path().join("closure");
    disk::make_empty(&payload, disk::PAYLOAD_SIZE)?;
    disk::make_empty(&closure, disk::CLOSURE_SIZE)?;
    let disks = Disks { root: &root, keep_root: true, payload: &payload, closure: &closure };
    let (mut machine, monitor) = Machine::start(run_directory, image, &disks, None, std::io::sink())?;
    machine.wait_for("READY", BOOT)?;
    if let Some(monitor) = monitor {
        let mut monitor = Monitor::new(monitor)?;
        monitor.save(&dir.join("state"), Instant::now() + BOOT)?;
        monitor.quit()?;
    }
    machine.wait_for_end(BOOT)
}

/// A saved machine belongs to this image, this QEMU and this boot of the host, whose TSC the guest has seen.
fn snapshot_inputs(image: &Path) -> Result<String, Error> {
    let version = run("ask QEMU for its version", Command::new("qemu-system-x86_64").arg("--version"))?;
    let boot = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read_to_string(boot).map_err(Error::file("read", boot))?;
    let disk = image.join("root.ext4");
    let built = disk.metadata().and_then(|data| data.modified()).map_err(Error::file("look at", &disk))?;
    let built = built.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let sizes = [disk::PAYLOAD_SIZE, disk::CLOSURE_SIZE];
    Ok(format!("{version}{boot}image {built}\n{HARDWARE:?}\n{KERNEL_ARGUMENTS}\n{sizes:?}\n"))
}

/// The command that runs `binary`, a file of the payload, with `arguments` and with those of the caller's
/// environment variables that a test may look at.
#[must_use]
pub(crate) fn test_command(binary: &str, arguments: &[String]) -> String {
    let passed = ["RUST_BACKTRACE", "RUST_LOG", "NIXRUN_MUST_WORK", "NEXTEST", "NEXTEST_EXECUTION_MODE"];
    let variables = passed
        .iter()
        .filter_map(|name| std::env::var(name).ok().map(|value| format!("{name}={}", shell::quote(&value))));
    let words = std::iter::once(shell::quote(&format!("./{binary}")));
    let words = words.chain(arguments.iter().map(|argument| shell::quote(argument)));
    std::iter::once("exec env".to_owned()).chain(variables).chain(words).collect::<Vec<_>>().join(" ")
}

impl Runner {
    /// Runs a test binary of the payload with `arguments` in a fresh machine. See [`Runner::run`].
    ///
    /// # Errors
    /// As for [`Runner::run`].
    pub fn run_binary<W: Write + Send + 'static>(
        &self,
        payload: &Payload,
        closure: Option<&Path>,
        binary: &Path,
        arguments: &[String],
        output: W,
    ) -> Result<Ended<W>, Error> {
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        let command = test_command(&name, arguments);
        self.run(payload, closure, &command, timeout_from_environment(), output)
    }
}

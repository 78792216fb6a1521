//! One QEMU process: its command line, its two channels, its end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{Error, last_lines};

/// The hardware. The emulator only: where /dev/kvm is itself emulated it opens and then hangs, and QEMU does
/// not fall back. Part of what a saved machine depends on.
pub(crate) const HARDWARE: &[&str] = &[
    "-M",
    "q35,vmport=off,smbus=off,sata=off",
    "-accel",
    "tcg,thread=multi,tb-size=256",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "768",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-device",
    "virtio-rng-pci",
    "-device",
    "virtio-serial-pci",
];

/// `lsm=` leaves out BPF LSM, whose set-up takes a second under emulation; `no_timer_check` because a loaded
/// host can make the timer's self-test fail, which panics.
pub(crate) const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr \
     no_timer_check lsm= random.trust_cpu=on systemd.unit=nixrun-test.target systemd.show_status=no";

/// QEMU connects within milliseconds; a loaded machine may need longer.
const CONNECT: Duration = Duration::from_secs(30);

/// The disks a machine gets, as QEMU's `-drive` properties.
pub(crate) struct Disks<'a> {
    pub(crate) root: &'a Path,
    /// Writes to the root are kept: only while the machine is being saved.
    pub(crate) keep_root: bool,
    pub(crate) payload: &'a Path,
    pub(crate) closure: &'a Path,
}

/// A running QEMU. Killed when dropped, and by the kernel when the thread that started it ends.
pub(crate) struct Machine<W> {
    qemu: Child,
    control: UnixStream,
    lines: Receiver<String>,
    output: Option<JoinHandle<W>>,
    dir: TempDir,
}

impl<W: Write + Send + 'static> Machine<W> {
    /// Starts a machine from `image`, from scratch or from the saved `state`. What the guest prints on its
    /// port `out` goes to `output`. Sockets and logs are made in `dir`.
    pub(crate) fn start(
        dir: TempDir,
        image: &Path,
        disks: &Disks,
        state: Option<&Path>,
        output: W,
    ) -> Result<(Self, Option<UnixStream>), Error> {
        let control = listen(dir.path(), "ctl")?;
        let out = listen(dir.path(), "out")?;
        let monitor = disks.keep_root.then(|| listen(dir.path(), "monitor")).transpose()?;
        let log = dir.path().join("log");
        let log = File::create(&log).map_err(Error::file("create", &log))?;

        // setpriv: the machine must not outlive its runner, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]).args(HARDWARE);
        command.args(["-append", KERNEL_ARGUMENTS, "-serial", "file:serial"]);
        command.arg("-kernel").arg(image.join("vmlinuz")).arg("-initrd").arg(image.join("initrd"));
        command.args(disk_arguments(disks));
        for name in ["ctl", "out"] {
            command.args(["-chardev", &format!("socket,id={name},path={name}")]);
            command.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
        }
        if monitor.is_some() {
            command.args([
                "-chardev",
                "socket,id=monitor,path=monitor",
                "-mon",
                "chardev=monitor,mode=control",
            ]);
        }
        if let Some(state) = state {
            command
                .arg("-incoming")
                .arg(format!("exec:cat {}", crate::shell::quote(&state.display().to_string())));
        }
        let mut qemu = command
            .current_dir(dir.path())
            // QEMU keeps what a snapshot=on disk is written in an unlinked file there.
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|source| Error::Start { doing: "start a machine", program: "setpriv".into(), source })?;

        let connections = || -> Result<_, Error> {
            let control = accept(&control, &mut qemu, dir.path())?;
            let out = accept(&out, &mut qemu, dir.path())?;
            let monitor = monitor.map(|listener| accept(&listener, &mut qemu, dir.path())).transpose()?;
            let reader = control.try_clone().map_err(Error::file("duplicate the socket in", dir.path()))?;
            Ok((control, reader, out, monitor))
        };
        let (control, reader, out, monitor) = match { connections }() {
            Ok(connections) => connections,
            Err(error) => {
                end(&mut qemu);
                return Err(error);
            }
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let output = Some(std::thread::spawn(move || copy(out, output)));
        Ok((Self { qemu, control, lines, output, dir }, monitor))
    }

    /// Sends one line to the guest.
    pub(crate) fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.control, "{line}")
            .map_err(|source| self.trouble(&format!("cannot be told what to do ({source})")))
    }

    /// Waits for a line that begins with `word` and returns the rest of it.
    pub(crate) fn wait_for(&mut self, word: &str, timeout: Duration) -> Result<String, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(word) {
                        return Ok(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.trouble(&format!("did not say {word} within {} s", timeout.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.trouble(&format!("ended before it said {word}")));
                }
            }
        }
    }

    /// Waits for QEMU to end by itself.
    pub(crate) fn wait_for_end(mut self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if matches!(self.qemu.try_wait(), Ok(Some(_))) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.trouble("did not end when told to"))
    }

    /// Ends the machine and returns the writer with all that the guest had printed.
    pub(crate) fn stop(mut self) -> Option<W> {
        end(&mut self.qemu);
        self.output.take().and_then(|thread| thread.join().ok())
    }

    fn trouble(&self, what: &str) -> Error {
        trouble(self.dir.path(), what)
    }
}

impl<W> Drop for Machine<W> {
    fn drop(&mut self) {
        end(&mut self.qemu);
    }
}

/// Idempotent: a process that was waited for is not signalled again.
fn end(qemu: &mut Child) {
    let _ = qemu.kill();
    let _ = qemu.wait();
}

fn trouble(dir: &Path, what: &str) -> Error {
    let text = ["log", "serial"].map(|name| fs::read(dir.join(name)).unwrap_or_default()).concat();
    Error::Machine { what: what.to_owned(), serial: last_lines(&text, 30) }
}

fn disk_arguments(disks: &Disks) -> Vec<String> {
    let root = if disks.keep_root { "cache=unsafe" } else { "cache=unsafe,snapshot=on" };
    let disks = [
        ("root", disks.root, root),
        ("payload", disks.payload, "readonly=on"),
        ("closure", disks.closure, "readonly=on"),
    ];
    let arguments = disks.map(|(name, path, options)| {
        // A comma in a property is written twice.
        let path = path.display().to_string().replace(',', ",,");
        let drive = format!("if=none,id={name},format=raw,{options},file={path}");
        ["-drive".into(), drive, "-device".into(), format!("virtio-blk-pci,drive={name}")]
    });
    arguments.into_iter().flatten().collect()
}

/// A listening socket `name` in `dir`. Bound through the directory's descriptor, since a socket's path may
/// have 107 bytes only.
fn listen(dir: &Path, name: &str) -> Result<UnixListener, Error> {
    let open = File::open(dir).map_err(Error::file("open", dir))?;
    let path = format!("/proc/self/fd/{}/{name}", open.as_raw_fd());
    let listener = UnixListener::bind(path).map_err(Error::file("listen on", dir.join(name)))?;
    listener.set_nonblocking(true).map_err(Error::file("listen on", dir.join(name)))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, qemu: &mut Child, dir: &Path) -> Result<UnixStream, Error> {
    let deadline = Instant::now() + CONNECT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(Error::file("use a socket in", dir))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Error::file("accept on a socket in", dir)(error)),
        }
        if matches!(qemu.try_wait(), Ok(Some(_))) {
            return Err(trouble(dir, "did not start"));
        }
        if Instant::now() > deadline {
            return Err(trouble(dir, "did not connect to its runner"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn copy<W: Write>(mut from: impl Read, mut to: W) -> W {
    let mut buffer = [0; 16 << 10];
    // Read on when the writer fails, or the guest would block in its own write.
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let _ = to.write_all(&buffer[..count]).and_then(|()| to.flush());
    }
    to
}

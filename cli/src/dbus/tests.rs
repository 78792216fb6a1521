//! Against a real dbus-daemon, which refuses every malformed message, with a stand-in for systemd behind it.

use std::process::{Child, Command, Stdio};
use std::thread;

use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(10);

/// A bus of our own.
struct Bus {
    dir: tempfile::TempDir,
    daemon: Child,
}

impl Bus {
    /// `None`, with the reason printed, where dbus-daemon is not installed.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn start() -> Option<Bus> {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("bus.conf");
        let text = format!(
            "<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow send_destination='*'/><allow eavesdrop='true'/><allow own='*'/></policy></busconfig>",
            dir.path().join("bus").display()
        );
        std::fs::write(&config, text).unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn();
        match daemon {
            Ok(mut daemon) => {
                // The address appears once the socket listens.
                let ready = daemon.stdout.as_mut().unwrap().read(&mut [0; 256]).unwrap();
                assert_ne!(ready, 0, "dbus-daemon did not start");
                Some(Bus { dir, daemon })
            }
            Err(e) if std::env::var_os("NIXRUN_MUST_WORK").is_none() => {
                eprintln!("skipped: dbus-daemon cannot be started: {e}");
                None
            }
            Err(e) => panic!("dbus-daemon cannot be started: {e}"),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    /// A stand-in for systemd that answers one call as `answer` says and returns what it was asked.
    fn systemd(&self, answer: fn(&mut Connection, &Message, &str)) -> thread::JoinHandle<Message> {
        let deadline = Instant::now() + WAIT;
        let mut connection = Connection::open(&self.socket(), deadline).unwrap();
        assert!(connection.call(BUS, BUS_PATH, BUS, "Hello", "", Writer::default()).is_ok());
        let mut name = Writer::default();
        name.string(SYSTEMD).u32(0);
        assert!(connection.call(BUS, BUS_PATH, BUS, "RequestName", "su", name).is_ok());
        thread::spawn(move || {
            loop {
                let message = connection.next().unwrap();
                if message.kind == kind::CALL {
                    answer(&mut connection, &message, "/org/freedesktop/systemd1/job/7");
                    return message;
                }
            }
        })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn reply(
    connection: &mut Connection,
    to: &Message,
    kind: u8,
    error: &[(u8, &str)],
    signature: &str,
    body: Writer,
) {
    let mut fields = vec![(field::DESTINATION, to.sender.as_str()), (field::SIGNATURE, signature)];
    fields.extend(error);
    connection.serial += 1;
    let bytes = wire::message(kind, connection.serial, &fields, Some(to.serial), body);
    connection.stream.write_all(&bytes).unwrap();
}

fn job_removed(connection: &mut Connection, job: &str, result: &str) {
    let mut body = Writer::default();
    body.u32(7).string(job).string("machine-web.scope").string(result);
    connection.serial += 1;
    let fields = [
        (field::PATH, SYSTEMD_PATH),
        (field::INTERFACE, MANAGER),
        (field::MEMBER, "JobRemoved"),
        (field::SIGNATURE, "uoss"),
    ];
    connection
        .stream
        .write_all(&wire::message(kind::SIGNAL, connection.serial, &fields, None, body))
        .unwrap();
}

fn job(job: &str) -> Writer {
    let mut body = Writer::default();
    body.string(job);
    body
}

#[test]
fn the_scope_is_asked_for_and_waited_for() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.systemd(|connection, call, path| {
        reply(connection, call, kind::RETURN, &[], "o", job(path));
        job_removed(connection, "/org/freedesktop/systemd1/job/6", "failed");
        job_removed(connection, path, "done");
    });
    start_scope(&bus.socket(), "web", WAIT).unwrap();

    let call = systemd.join().unwrap();
    assert_eq!((call.member.as_str(), call.interface.as_str()), ("StartTransientUnit", MANAGER));
    assert_eq!(call.signature, "ssa(sv)a(sa(sv))");
    let mut reader = Reader::new(&call.body);
    assert_eq!((reader.string(), reader.string()), (Some("machine-web.scope"), Some("fail")));
    for name in ["Description", "Slice", "CollectMode", "Delegate", "PIDs"] {
        assert!(call.body.windows(name.len()).any(|w| w == name.as_bytes()), "{name}");
    }
    assert!(call.body.windows(4).any(|w| w == std::process::id().to_le_bytes()));
}

#[test]
fn a_job_that_fails_is_an_error() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.systemd(|connection, call, path| {
        reply(connection, call, kind::RETURN, &[], "o", job(path));
        job_removed(connection, path, "canceled");
    });
    let sentence = start_scope(&bus.socket(), "web", WAIT).unwrap_err().to_string();
    assert!(
        sentence.starts_with("cannot start machine-web.scope: systemd's job ended as \"canceled\""),
        "{sentence}"
    );
    systemd.join().unwrap();
}

#[test]
fn a_refusal_is_passed_on() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.systemd(|connection, call, _| {
        let error = [(field::ERROR_NAME, "org.freedesktop.systemd1.UnitExists")];
        reply(connection, call, kind::ERROR, &error, "s", job("Unit machine-web.scope already exists."));
    });
    assert_eq!(
        start_scope(&bus.socket(), "web", WAIT).unwrap_err().to_string(),
        "cannot start machine-web.scope: systemd answered org.freedesktop.systemd1.UnitExists: Unit \
         machine-web.scope already exists."
    );
    systemd.join().unwrap();
}

#[test]
fn a_bus_without_systemd_is_an_error() {
    let Some(bus) = Bus::start() else { return };
    let sentence = start_scope(&bus.socket(), "web", WAIT).unwrap_err().to_string();
    assert!(sentence.contains("org.freedesktop.DBus.Error.ServiceUnknown: "), "{sentence}");
}

#[test]
fn a_systemd_that_does_not_answer_is_given_up() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.systemd(|connection, call, path| {
        reply(connection, call, kind::RETURN, &[], "o", job(path));
        // Stay on the bus until the caller is gone.
        let _ = connection.next();
    });
    let sentence = start_scope(&bus.socket(), "web", Duration::from_millis(300)).unwrap_err().to_string();
    assert!(sentence.ends_with(": no answer in time"), "{sentence}");
    drop(bus);
    let _ = systemd.join();
}

#[test]
fn no_bus_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = start_scope(&dir.path().join("bus"), "web", WAIT).unwrap_err().to_string();
    assert!(sentence.contains("machine-web.scope over ") && sentence.contains("No such file"), "{sentence}");
}

/// What the same call looks like when libdbus decodes it.
#[test]
fn dbus_monitor_reads_every_property() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.systemd(|connection, call, path| {
        reply(connection, call, kind::RETURN, &[], "o", job(path));
        job_removed(connection, path, "done");
    });
    let mut monitor = Command::new("dbus-monitor")
        .args(["--address", &format!("unix:path={}", bus.socket().display()), "member='StartTransientUnit'"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut stdout = monitor.stdout.take().unwrap();
    let mut chunk = [0; 4096];
    // The monitor reports that it lost its name once it is one.
    while !text.contains("NameLost") {
        let read = stdout.read(&mut chunk).unwrap();
        text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    start_scope(&bus.socket(), "a-b", WAIT).unwrap();
    systemd.join().unwrap();
    drop(bus);
    stdout.read_to_string(&mut text).unwrap();
    monitor.wait().unwrap();

    let words: Vec<&str> = text.split_whitespace().collect();
    let pid = std::process::id();
    let expected = format!(
        "string \"machine-a\\x2db.scope\" string \"fail\" array [ \
         struct {{ string \"Description\" variant string \"Container a-b\" }} \
         struct {{ string \"Slice\" variant string \"machine.slice\" }} \
         struct {{ string \"CollectMode\" variant string \"inactive-or-failed\" }} \
         struct {{ string \"Delegate\" variant boolean true }} \
         struct {{ string \"PIDs\" variant array [ uint32 {pid} ] }} ] array [ ]"
    );
    assert!(words.join(" ").contains(&expected), "{text}");
}

#[test]
fn scope_names_are_escaped_as_systemd_escapes_them() {
    for (name, unit) in [
        ("web", "machine-web.scope"),
        ("a-b", "machine-a\\x2db.scope"),
        ("a.b", "machine-a.b.scope"),
        (".a b", "machine-\\x2ea\\x20b.scope"),
    ] {
        assert_eq!(scope_name(name), unit);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
        let mut bytes = bytes;
        if like && bytes.len() >= FIXED {
            bytes[..4].copy_from_slice(b"l\x04\x00\x01");
            bytes[12..16].copy_from_slice(&40u32.to_le_bytes());
        }
        let _ = wire::message_length(&bytes);
        let _ = Message::read(&bytes);
    }
}

//! A real dbus-daemon, which refuses every malformed message, with stand-ins for services behind it.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// A bus of our own.
pub(crate) struct Bus {
    dir: tempfile::TempDir,
    daemon: Child,
}

impl Bus {
    /// `None`, with the reason printed, where dbus-daemon is not installed.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn start() -> Option<Bus> {
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

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.socket(), Instant::now() + WAIT, None).unwrap()
    }

    /// A stand-in for the service `name` that answers each call as `answer` says, until that says that it leaves, or
    /// until there is no bus any more. Returns what it was asked.
    pub(crate) fn service(
        &self,
        name: &str,
        mut answer: impl FnMut(&mut Connection, &Message) -> Service + Send + 'static,
    ) -> thread::JoinHandle<Vec<Message>> {
        let mut connection = self.connect();
        let mut body = Writer::default();
        body.string(name).u32(0);
        connection.call(Call::to_bus("RequestName", "su", body)).unwrap();
        thread::spawn(move || {
            let mut asked = Vec::new();
            while let Ok(message) = connection.next() {
                if message.kind == kind::CALL {
                    let then = answer(&mut connection, &message);
                    asked.push(message);
                    if then == Service::Leaves {
                        break;
                    }
                }
            }
            asked
        })
    }
}

/// What a stand-in does after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Stays,
    Leaves,
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Connection {
    pub(crate) fn answer(&mut self, to: &Message, signature: &str, body: Writer) {
        let fields = [(field::DESTINATION, to.sender.as_str()), (field::SIGNATURE, signature)];
        self.send(kind::RETURN, &fields, Some(to.serial), body);
    }

    pub(crate) fn refuse(&mut self, to: &Message, name: &str, text: &str) {
        let fields =
            [(field::DESTINATION, to.sender.as_str()), (field::SIGNATURE, "s"), (field::ERROR_NAME, name)];
        self.send(kind::ERROR, &fields, Some(to.serial), text_body(text));
    }

    pub(crate) fn send(&mut self, kind: u8, fields: &[(u8, &str)], reply_to: Option<u32>, body: Writer) {
        self.serial += 1;
        let bytes = wire::message(kind, 0, self.serial, fields, reply_to, body);
        self.stream.write_all(&bytes).unwrap();
    }
}

pub(crate) fn text_body(text: &str) -> Writer {
    let mut body = Writer::default();
    body.string(text);
    body
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

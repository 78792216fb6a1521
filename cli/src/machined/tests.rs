//! Against a real dbus-daemon and against a varlink socket, with a stand-in for systemd-machined behind each.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::*;
use crate::dbus::Connection;
use crate::dbus::tests::{Bus, Service, WAIT, text_body};
use crate::dbus::wire::{Message, Reader, Writer};

const MACHINED: &str = "org.freedesktop.machine1";
const OBJECT: &str = "/org/freedesktop/machine1/machine/web";

/// No kernel gives a process this number: it is above PID_MAX_LIMIT.
const DEAD: u32 = 1 << 23;

fn machine() -> Machine {
    Machine {
        name: "web".to_owned(),
        id: *b"0123456789abcdef",
        service: "systemd-nspawn".to_owned(),
        leader: 4321,
        root: "/var/lib/nixos-containers/web".into(),
        links: vec![7, 9],
    }
}

/// A host with a bus, or a varlink socket, or none.
struct Host {
    _dir: tempfile::TempDir,
    paths: HostPaths,
}

impl Host {
    fn new(bus: Option<&Bus>) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        for socket in [SYSTEM_BUS, VARLINK] {
            std::fs::create_dir_all(paths.join(socket).parent().unwrap()).unwrap();
        }
        if let Some(bus) = bus {
            std::os::unix::fs::symlink(bus.socket(), paths.join(SYSTEM_BUS)).unwrap();
        }
        Host { _dir: dir, paths }
    }

    fn register(&self) -> Result<(), RegisterError> {
        register(&machine(), &self.paths, WAIT, &CallOff::new().unwrap())
    }

    /// Answers requests, a connection for each list, in this order, and tells what was asked.
    fn varlink(&self, answers: Vec<Vec<Value>>) -> (JoinHandle<()>, Receiver<Value>) {
        let listener = UnixListener::bind(self.paths.join(VARLINK)).unwrap();
        let (sender, asked) = channel();
        let thread = std::thread::spawn(move || {
            for answers in answers {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    sender.send(request(&mut stream)).unwrap();
                    stream.write_all(format!("{answer}\0").as_bytes()).unwrap();
                }
            }
        });
        (thread, asked)
    }
}

fn request(stream: &mut UnixStream) -> Value {
    let mut bytes = Vec::new();
    BufReader::new(stream).read_until(0, &mut bytes).unwrap();
    serde_json::from_slice(bytes.strip_suffix(&[0]).unwrap()).unwrap()
}

/// A machined in which `web` is registered, with this leader, until it is unregistered.
fn occupied(leader: u32) -> impl FnMut(&mut Connection, &Message) -> Service {
    let mut there = true;
    move |connection, call| {
        let mut arguments = Reader::new(&call.body);
        match call.member.as_str() {
            "RegisterMachineWithNetwork" if there => {
                let name = "org.freedesktop.machine1.MachineExists";
                connection.refuse(call, name, "Machine 'web' already exists");
            }
            "RegisterMachineWithNetwork" | "GetMachine" => connection.answer(call, "o", text_body(OBJECT)),
            "UnregisterMachine" => {
                there = false;
                connection.answer(call, "", Writer::default());
            }
            "Get" => {
                let (_, property) = (arguments.string(), arguments.string());
                let mut body = Writer::default();
                match property {
                    Some("Leader") => body.signature("u").u32(leader),
                    Some("Service") => body.signature("s").string("other"),
                    _ => body.signature("s").string("other.service"),
                };
                connection.answer(call, "v", body);
            }
            other => panic!("{other}"),
        }
        Service::Stays
    }
}

fn members(asked: &[Message]) -> Vec<&str> {
    asked.iter().map(|call| call.member.as_str()).collect()
}

#[test]
fn the_bus_is_told_name_leader_root_and_links() {
    let Some(bus) = Bus::start() else { return };
    let machined = bus.service(MACHINED, |connection, call| {
        connection.answer(call, "o", text_body(OBJECT));
        Service::Leaves
    });
    Host::new(Some(&bus)).register().unwrap();
    let asked = machined.join().unwrap();
    assert_eq!(members(&asked), ["RegisterMachineWithNetwork"]);
    assert_eq!(asked[0].signature, "sayssusai");
    let mut expected = Writer::default();
    expected.string("web").bytes(b"0123456789abcdef").string("systemd-nspawn").string("container").u32(4321);
    expected.string("/var/lib/nixos-containers/web").array(4, |links| {
        links.u32(7).u32(9);
    });
    assert_eq!(asked[0].body, expected.into_bytes());
}

#[test]
fn a_registration_whose_leader_is_dead_is_removed_and_the_new_one_made() {
    let Some(bus) = Bus::start() else { return };
    let machined = bus.service(MACHINED, occupied(DEAD));
    Host::new(Some(&bus)).register().unwrap();
    drop(bus);
    let asked = machined.join().unwrap();
    let expected = [
        "RegisterMachineWithNetwork",
        "GetMachine",
        "Get",
        "Get",
        "Get",
        "UnregisterMachine",
        "RegisterMachineWithNetwork",
    ];
    assert_eq!(members(&asked), expected);
}

#[test]
fn a_living_machine_of_that_name_stays_and_is_named() {
    let Some(bus) = Bus::start() else { return };
    let machined = bus.service(MACHINED, occupied(std::process::id()));
    let host = Host::new(Some(&bus));
    let sentence = host.register().unwrap_err().to_string();
    let pid = std::process::id();
    assert!(
        sentence.contains(&format!(
            "other has registered a machine of this name, which runs in other.service as process {pid};"
        )),
        "{sentence}"
    );
    assert!(!unregister_dead("web", &host.paths));
    drop(bus);
    assert!(!members(&machined.join().unwrap()).contains(&"UnregisterMachine"));
}

#[test]
fn what_a_crash_left_registered_is_removed() {
    let Some(bus) = Bus::start() else { return };
    let machined = bus.service(MACHINED, occupied(DEAD));
    assert!(unregister_dead("web", &Host::new(Some(&bus)).paths));
    drop(bus);
    assert_eq!(members(&machined.join().unwrap()).last(), Some(&"UnregisterMachine"));
}

#[test]
fn varlink_comes_before_the_bus() {
    let host = Host::new(None);
    let (machined, asked) = host.varlink(vec![vec![json!({"parameters": {}})]]);
    host.register().unwrap();
    machined.join().unwrap();
    let expected = json!({
        "method": "io.systemd.Machine.Register",
        "parameters": {
            "name": "web",
            "id": "30313233343536373839616263646566",
            "service": "systemd-nspawn",
            "class": "container",
            "leader": 4321,
            "rootDirectory": "/var/lib/nixos-containers/web",
            "ifIndices": [7, 9],
        }
    });
    assert_eq!(asked.recv().unwrap(), expected);
}

#[test]
fn over_varlink_too_a_dead_registration_makes_way() {
    let host = Host::new(None);
    let exists = json!({"error": "io.systemd.Machine.MachineExists", "parameters": {}});
    let found = json!({"parameters": {"name": "web", "leader": {"pid": DEAD}, "unit": "a.service"}});
    let done = json!({"parameters": {}});
    let (machined, asked) = host.varlink(vec![vec![exists, found, done.clone(), done]]);
    host.register().unwrap();
    machined.join().unwrap();
    let methods: Vec<String> = asked
        .iter()
        .map(|asked| asked["method"].as_str().unwrap().replace("io.systemd.Machine.", ""))
        .collect();
    assert_eq!(methods, ["Register", "List", "Unregister", "Register"]);
}

#[test]
fn a_varlink_that_does_not_know_how_leads_to_the_bus() {
    let Some(bus) = Bus::start() else { return };
    let host = Host::new(Some(&bus));
    let unknown =
        json!({"error": "org.varlink.service.MethodNotFound", "parameters": {"method": "Register"}});
    let (varlink, _asked) = host.varlink(vec![vec![unknown]]);
    let machined = bus.service(MACHINED, |connection, call| {
        connection.answer(call, "o", text_body(OBJECT));
        Service::Leaves
    });
    host.register().unwrap();
    varlink.join().unwrap();
    assert_eq!(members(&machined.join().unwrap()), ["RegisterMachineWithNetwork"]);
}

#[test]
fn a_host_without_machined_is_told_from_one_that_refuses() {
    assert!(matches!(Host::new(None).register(), Err(RegisterError::Absent)));
    let Some(bus) = Bus::start() else { return };
    let host = Host::new(Some(&bus));
    assert!(matches!(host.register(), Err(RegisterError::Absent)));
    let machined = bus.service(MACHINED, |connection, call| {
        connection.refuse(
            call,
            "org.freedesktop.systemd1.UnitMasked",
            "Unit systemd-machined.service is masked.",
        );
        Service::Leaves
    });
    assert_eq!(
        host.register().unwrap_err().to_string(),
        "cannot register container web with systemd-machined: Unit systemd-machined.service is masked; \
         machinectl will not show it"
    );
    machined.join().unwrap();
}

#[test]
fn a_machined_that_does_not_answer_is_given_up_when_the_container_ends() {
    let host = Host::new(None);
    let _deaf = UnixListener::bind(host.paths.join(VARLINK)).unwrap();
    let call_off = CallOff::new().unwrap();
    let endless = Duration::from_secs(3600);
    std::thread::scope(|threads| {
        let registering = threads.spawn(|| register(&machine(), &host.paths, endless, &call_off));
        call_off.now();
        assert!(registering.join().unwrap().is_err());
    });
}

#[test]
fn the_file_of_a_machined_that_does_not_run_goes_with_its_container() {
    let host = Host::new(None);
    let directory = host.paths.join("/run/systemd/machines");
    std::fs::create_dir_all(&directory).unwrap();
    let (file, link) = (directory.join("web"), directory.join("unit:machine-w\\x2db.scope"));
    let write = |leader: u32| {
        std::fs::write(&file, format!("NAME=web\nSCOPE=machine-w\\\\x2db.scope\nLEADER={leader}\n")).unwrap();
    };
    std::os::unix::fs::symlink("web", &link).unwrap();
    write(std::process::id());
    assert!(!unregister_dead("web", &host.paths));
    assert!(file.exists());
    write(DEAD);
    unregister("web", &host.paths);
    assert!(!file.exists() && link.symlink_metadata().is_err());
}

#[test]
fn a_process_that_nobody_has_waited_for_yet_is_dead() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let paths = HostPaths::default();
    let deadline = Instant::now() + WAIT;
    while is_alive(child.id(), &paths) {
        assert!(Instant::now() < deadline, "a zombie counts as alive");
        std::thread::yield_now();
    }
    child.wait().unwrap();
    assert!(is_alive(std::process::id(), &paths));
    assert!(!is_alive(DEAD, &paths));
}

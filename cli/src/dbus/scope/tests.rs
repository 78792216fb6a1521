use std::io::Read;
use std::process::{Command, Stdio};

use super::*;
use crate::dbus::tests::{Bus, Service, WAIT, text_body};
use crate::dbus::wire::field;

const JOB: &str = "/org/freedesktop/systemd1/job/7";

fn start(bus: &Path, container: &str) -> Result<Scope, ScopeError> {
    Scope::start(bus, &ScopeRequest { container, slice: SLICE, properties: &[] }, WAIT)
}

fn job_removed(connection: &mut Connection, job: &str, result: &str) {
    let mut body = Writer::default();
    body.u32(7).string(job).string("machine-web.scope").string(result);
    let fields = [
        (field::PATH, SYSTEMD_PATH),
        (field::INTERFACE, MANAGER),
        (field::MEMBER, "JobRemoved"),
        (field::SIGNATURE, "uoss"),
    ];
    connection.send(kind::SIGNAL, &fields, None, body);
}

fn request_stop(connection: &mut Connection, to: &str) {
    let fields = [
        (field::DESTINATION, to),
        (field::PATH, "/org/freedesktop/systemd1/unit/machine_2dweb_2escope"),
        (field::INTERFACE, SCOPE),
        (field::MEMBER, "RequestStop"),
    ];
    connection.send(kind::SIGNAL, &fields, None, Writer::default());
}

/// A systemd that starts one scope.
fn systemd(connection: &mut Connection, call: &Message) -> Service {
    connection.answer(call, "o", text_body(JOB));
    job_removed(connection, JOB, "done");
    Service::Leaves
}

#[test]
fn the_scope_is_asked_for_and_waited_for() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.service(SYSTEMD, |connection, call| {
        connection.answer(call, "o", text_body(JOB));
        job_removed(connection, "/org/freedesktop/systemd1/job/6", "failed");
        job_removed(connection, JOB, "done");
        Service::Leaves
    });
    start(&bus.socket(), "web").unwrap();
    let calls = systemd.join().unwrap();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((call.member.as_str(), call.interface.as_str()), ("StartTransientUnit", MANAGER));
    assert_eq!(call.signature, "ssa(sv)a(sa(sv))");
    let mut reader = Reader::new(&call.body);
    assert_eq!((reader.string(), reader.string()), (Some("machine-web.scope"), Some("fail")));
}

#[test]
fn a_job_that_fails_is_an_error() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.service(SYSTEMD, |connection, call| {
        connection.answer(call, "o", text_body(JOB));
        job_removed(connection, JOB, "canceled");
        Service::Leaves
    });
    let sentence = start(&bus.socket(), "web").unwrap_err().to_string();
    assert!(
        sentence.starts_with("cannot start machine-web.scope: systemd's job ended as \"canceled\""),
        "{sentence}"
    );
    systemd.join().unwrap();
}

#[test]
fn a_refusal_is_passed_on() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.service(SYSTEMD, |connection, call| {
        let name = "org.freedesktop.systemd1.UnitExists";
        connection.refuse(call, name, "Unit machine-web.scope already exists.");
        Service::Leaves
    });
    assert_eq!(
        start(&bus.socket(), "web").unwrap_err().to_string(),
        "cannot start machine-web.scope: systemd answered org.freedesktop.systemd1.UnitExists: Unit \
         machine-web.scope already exists."
    );
    systemd.join().unwrap();
}

#[test]
fn a_bus_without_systemd_is_an_error() {
    let Some(bus) = Bus::start() else { return };
    let sentence = start(&bus.socket(), "web").unwrap_err().to_string();
    assert!(sentence.contains("org.freedesktop.DBus.Error.ServiceUnknown: "), "{sentence}");
}

#[test]
fn a_systemd_that_does_not_answer_is_given_up() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.service(SYSTEMD, |connection, call| {
        connection.answer(call, "o", text_body(JOB));
        // Stay on the bus until the caller is gone.
        let _ = connection.next();
        Service::Leaves
    });
    let request = ScopeRequest { container: "web", slice: SLICE, properties: &[] };
    let sentence = Scope::start(&bus.socket(), &request, Duration::from_millis(300)).unwrap_err().to_string();
    assert!(sentence.ends_with(": no answer in time"), "{sentence}");
    drop(bus);
    let _ = systemd.join();
}

#[test]
fn no_bus_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = start(&dir.path().join("bus"), "web").unwrap_err().to_string();
    assert!(sentence.contains("machine-web.scope over ") && sentence.contains("No such file"), "{sentence}");
}

#[test]
fn systemd_may_ask_for_a_stop_and_nobody_else() {
    let Some(bus) = Bus::start() else { return };
    let systemd_thread = bus.service(SYSTEMD, systemd);
    let mut scope = start(&bus.socket(), "web").unwrap();
    systemd_thread.join().unwrap();
    let us = scope.connection.name().to_owned();

    // The stand-in left the bus with its name: this one is not systemd.
    let mut stranger = bus.connect();
    request_stop(&mut stranger, &us);
    assert!(!scope.is_systemd(stranger.name()));
    // What is called off after that has been read ends the waiting.
    let call_off = CallOff::new().unwrap();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| scope.stop_requested(&call_off));
        let alive = stranger.call(Call::to_bus("GetId", "", Writer::default()));
        assert!(alive.is_ok());
        call_off.now();
        assert!(!waiting.join().unwrap());
    });

    // systemd has a new connection since it executed itself anew.
    let again = bus.service(SYSTEMD, move |connection, call| {
        connection.answer(call, "", Writer::default());
        request_stop(connection, &us);
        Service::Stays
    });
    let mut ping = Call::to_bus("Ping", "", Writer::default());
    (ping.destination, ping.interface) = (SYSTEMD, "org.freedesktop.DBus.Peer");
    stranger.call(ping).unwrap();
    assert!(scope.stop_requested(&CallOff::new().unwrap()));
    drop(bus);
    again.join().unwrap();
}

/// What the same call looks like when libdbus decodes it.
#[test]
fn dbus_monitor_reads_every_property() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.service(SYSTEMD, systemd);
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
    let properties: Vec<UnitProperty> = [
        "MemoryMax=1K",
        "MemoryHigh=50%",
        "TasksAccounting=no",
        "AllowedCPUs=0,9",
        "DevicePolicy=strict",
        "DeviceAllow=/dev/fuse rw",
        "IOReadIOPSMax=/var 7",
        "After=a.target b.target",
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect();
    let request = ScopeRequest { container: "a-b", slice: "other.slice", properties: &properties };
    let scope = Scope::start(&bus.socket(), &request, WAIT).unwrap();
    let us = scope.connection.name().to_owned();
    systemd.join().unwrap();
    drop(bus);
    stdout.read_to_string(&mut text).unwrap();
    monitor.wait().unwrap();

    let words: Vec<&str> = text.split_whitespace().collect();
    let pid = std::process::id();
    let expected = format!(
        "string \"machine-a\\x2db.scope\" string \"fail\" array [ \
         struct {{ string \"Description\" variant string \"Container a-b\" }} \
         struct {{ string \"Slice\" variant string \"other.slice\" }} \
         struct {{ string \"CollectMode\" variant string \"inactive-or-failed\" }} \
         struct {{ string \"Controller\" variant string \"{us}\" }} \
         struct {{ string \"Delegate\" variant boolean true }} \
         struct {{ string \"MemoryMax\" variant uint64 1024 }} \
         struct {{ string \"MemoryHighScale\" variant uint32 2147483648 }} \
         struct {{ string \"TasksAccounting\" variant boolean false }} \
         struct {{ string \"AllowedCPUs\" variant array of bytes [ 01 02 ] }} \
         struct {{ string \"DevicePolicy\" variant string \"strict\" }} \
         struct {{ string \"DeviceAllow\" variant array [ struct {{ string \"/dev/fuse\" string \"rw\" }} ] }} \
         struct {{ string \"IOReadIOPSMax\" variant array [ struct {{ string \"/var\" uint64 7 }} ] }} \
         struct {{ string \"After\" variant array [ string \"a.target\" string \"b.target\" ] }} \
         struct {{ string \"PIDs\" variant array [ uint32 {pid} ] }} ] array [ ]"
    );
    assert!(words.join(" ").contains(&expected), "{text}\nexpected {expected}");
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

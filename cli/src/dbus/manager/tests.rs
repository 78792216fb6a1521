use super::*;
use crate::dbus::tests::{Bus, Service, WAIT, text_body};
use crate::dbus::wire::{field, kind};

const JOB: &str = "/org/freedesktop/systemd1/job/7";
const PATH: &str = "/org/freedesktop/systemd1/unit/container_40web_2eservice";

fn connect(bus: &Bus) -> Manager {
    Manager::connect(&bus.socket(), Instant::now() + WAIT).unwrap()
}

fn job_removed(connection: &mut Connection, job: &str, result: &str) {
    let mut body = Writer::default();
    body.u32(7).string(job).string("container@web.service").string(result);
    let fields = [
        (field::PATH, SYSTEMD_PATH),
        (field::INTERFACE, MANAGER),
        (field::MEMBER, "JobRemoved"),
        (field::SIGNATURE, "uoss"),
    ];
    connection.send(kind::SIGNAL, &fields, None, body);
}

#[test]
fn a_job_is_queued_and_its_own_end_waited_for() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.service(SYSTEMD, |connection, call| {
        connection.answer(call, "o", text_body(JOB));
        job_removed(connection, "/org/freedesktop/systemd1/job/6", "done");
        job_removed(connection, JOB, "failed");
        Service::Leaves
    });
    let mut manager = connect(&bus);
    let job = manager.queue(Job::Start, "container@web.service").unwrap();
    assert_eq!(manager.wait(&job).unwrap(), "failed");
    let calls = systemd.join().unwrap();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((call.member.as_str(), call.interface.as_str()), ("StartUnit", MANAGER));
    let mut reader = Reader::new(&call.body);
    assert_eq!((reader.string(), reader.string()), (Some("container@web.service"), Some("replace")));
}

#[test]
fn a_units_state_is_read() {
    let Some(bus) = Bus::start() else { return };
    let systemd = bus.service(SYSTEMD, |connection, call| {
        let mut reader = Reader::new(&call.body);
        let (_, name) = (reader.string(), reader.string());
        let mut body = Writer::default();
        match (call.member.as_str(), name) {
            ("LoadUnit", _) => {
                connection.answer(call, "o", text_body(PATH));
                return Service::Stays;
            }
            ("Get", Some("ExecMainStatus")) => body.signature("i").u32(133),
            ("Get", Some("ActiveState")) => body.signature("s").string("activating"),
            ("Get", Some(name)) => body.signature("s").string(name),
            _ => {
                connection.refuse(call, "org.freedesktop.systemd1.NoSuchUnit", "no");
                return Service::Leaves;
            }
        };
        connection.answer(call, "v", body);
        Service::Stays
    });
    let mut manager = connect(&bus);
    let unit = manager.unit("container@web.service").unwrap();
    assert_eq!(unit, Unit { load: "LoadState".to_owned(), active: "activating".to_owned() });
    let end = manager.service_end("container@web.service").unwrap();
    let text = "StatusText".to_owned();
    assert_eq!(end, ServiceEnd { result: "Result".to_owned(), status: 133, status_text: text });
    let refused = manager.kill("container@web.service", 9).unwrap_err();
    assert!(matches!(refused, CallError::Refused { .. }), "{refused}");
    systemd.join().unwrap();
}

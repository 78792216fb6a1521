//! What containers use: stats, top and metrics, with the kernel's own tools as the oracle.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

use blackbox::prometheus::{Series, parse};
use blackbox::{Container, Host, Pty, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Whether the host has the memory controller for containers.
fn has_memory(container: &Container<'_>) -> bool {
    let group = container.state().unwrap()["cgroup"].as_str().unwrap().to_owned();
    fs::exists(format!("{group}/memory.current")).unwrap()
}

#[test]
fn traffic_is_counted_as_the_container_sees_it() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let mini = host.boot("mini");
        let address = mini.state().unwrap()["addresses"][0].as_str().unwrap().to_owned();
        let before = host.json(&["stats", "mini", "--json"]);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..50 {
            // Refused by the container, which says so.
            let _ = socket.send_to(&[0; 1000], format!("{address}:9"));
        }
        // What the host's end has sent, the container has received.
        let oracle = || -> Value {
            let links: Value = serde_json::from_str(&host.sh("ip -s -j link show dev ve-mini")).unwrap();
            links[0]["stats64"].clone()
        };
        let network = wait_for("quiet links", || {
            let (counters, stats) = (oracle(), host.json(&["stats", "mini", "--json"]));
            let network = stats["network"].clone();
            let same = |direction: &str, end: &str| {
                let pairs =
                    [("bytes", "bytes"), ("packets", "packets"), ("errors", "errors"), ("drops", "dropped")];
                pairs.iter().all(|(ours, theirs)| network[direction][ours] == counters[end][theirs])
            };
            (same("receive", "tx") && same("transmit", "rx")).then_some(network)
        });
        assert_eq!(network["source"], "host-links");
        let risen = |direction: &str, what: &str| {
            number(&network[direction][what]) - number(&before["network"][direction][what])
        };
        assert!(risen("receive", "bytes") >= 50_000 && risen("receive", "packets") >= 50, "{network}");
        assert!(risen("transmit", "packets") >= 1, "the refusals: {network}");
        mini.stop();
    });
}

#[test]
fn work_is_counted_and_a_stopped_container_uses_nothing() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let mini = host.boot("mini");
        let before = host.json(&["stats", "mini", "--json"]);
        host.inside("mini", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
        let after = host.json(&["stats", "mini", "--json"]);
        let used = number(&after["cpu"]["usage_usec"]) - number(&before["cpu"]["usage_usec"]);
        assert!(used > 20_000, "{used} us for 300000 turns of a loop");
        assert!(number(&after["cpu"]["user_usec"]) > number(&before["cpu"]["user_usec"]));
        assert!(after["rates"]["cpu_percent"].is_number(), "{after}");
        assert_eq!(after["state"], "running");
        let source = if has_memory(&mini) { "cgroup" } else { "processes" };
        assert_eq!((&after["memory"]["source"], &after["pids"]["source"]), (&source.into(), &source.into()));
        let group = mini.state().unwrap()["cgroup"].as_str().unwrap().to_owned();
        let count = host.sh(&format!("find {group} -name cgroup.procs -exec cat {{}} + | wc -l"));
        assert_eq!(after["pids"]["processes"].to_string(), count.trim());
        // PID 1 keeps still.
        let status = fs::read_to_string(format!("/proc/{}/status", mini.leader())).unwrap();
        let resident: u64 =
            status.split("VmRSS:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(number(&after["memory"]["current"]) >= resident * 1024, "{after}");
        let text = host.ok(&["stats", "mini"]);
        assert!(
            text.contains("running") && text.contains(" since the start") && !text.contains('\u{1b}'),
            "{text}"
        );
        mini.stop();
        let stopped = host.json(&["stats", "mini", "--json"]);
        assert_eq!((&stopped["state"], &stopped["cpu"]), (&"stopped".into(), &Value::Null));
        let error = host.fails(1, &["stats", "mnii"]);
        assert!(error.contains("did you mean \"mini\"?"), "{error}");
    });
}

#[test]
fn systemd_in_a_container_is_counted_with_all_that_it_starts() {
    on_host(|host| {
        host.install(Kind::Base, "base");
        let base = host.boot("base");
        let group = base.state().unwrap()["cgroup"].as_str().unwrap().to_owned();
        // Services come and go for a while after the readiness.
        let stats = wait_for("figures of one moment", || {
            let count = || host.sh(&format!("find {group} -name cgroup.procs -exec cat {{}} + | wc -l"));
            let (before, stats, after) = (count(), host.json(&["stats", "base", "--json"]), count());
            let counted: u64 = before.trim().parse().unwrap();
            let same = before == after && number(&stats["pids"]["processes"]) == counted;
            same.then_some(stats)
        });
        assert!(number(&stats["pids"]["processes"]) > 2, "systemd and its services: {stats}");
        assert!(number(&stats["pids"]["current"]) >= number(&stats["pids"]["processes"]), "{stats}");
        assert!(
            number(&stats["cpu"]["usage_usec"]) > 100_000 && number(&stats["memory"]["current"]) > 8 << 20,
            "{stats}"
        );
        let top = host.json(&["top", "--once", "--json"]);
        assert_eq!((&top[0]["name"], &top[0]["state"]), (&"base".into(), &"running".into()));
        assert!(top[0]["network"]["receive"]["bytes"].is_u64() && top[0]["pressure"].is_object());
        base.stop();
    });
}

#[test]
fn a_container_with_the_hosts_network_has_no_traffic_of_its_own() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let without = [
            "PRIVATE_NETWORK",
            "HOST_ADDRESS",
            "HOST_ADDRESS6",
            "LOCAL_ADDRESS",
            "LOCAL_ADDRESS6",
            "HOST_PORT",
        ];
        host.set_conf("mini", &without.map(|key| (key, None)));
        let mini = host.boot("mini");
        assert_eq!(host.json(&["stats", "mini", "--json"])["network"], Value::Null);
        mini.stop();
        host.sh("ip link add eth1 type veth peer name far1; ip link set far1 up");
        host.set_conf("mini", &[("PRIVATE_NETWORK", Some("1")), ("MACVLANS", Some("eth1"))]);
        let mini = host.boot("mini");
        assert_eq!(host.json(&["stats", "mini", "--json"])["network"]["source"], "namespace");
        mini.stop();
    });
}

#[test]
fn top_prints_once_or_a_line_a_look() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.install(Kind::Mini, "idle");
        let mini = host.boot("mini");
        let table = host.ok(&["top", "--once"]);
        let header = "NAME STATE CPU% MEM LIMIT PIDS IO-R/s IO-W/s NET-RX/s NET-TX/s AGE";
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!((words(lines[0]), lines.len()), (words(header), 2), "only what runs: {table}");
        assert_eq!(words(lines[1])[..2], ["mini", "running"], "{table}");
        let once = host.json(&["top", "--once", "--json"]);
        assert_eq!((&once[0]["name"], once.as_array().map(Vec::len)), (&"mini".into(), Some(1)));
        assert!(once[0]["rates"]["cpu_percent"].is_number(), "{once}");
        let watching = host.spawn("top", &["top", "--json", "--interval", "1", "mini"]);
        wait_for("two looks", || (watching.out().lines().count() >= 2).then_some(()));
        let looks = host.json_lines("top", &watching.out());
        assert_eq!((&looks[0][0]["rates"], looks[1][0]["rates"].is_object()), (&Value::Null, true));
        assert_eq!(watching.stop().code, Some(0));
        assert!(host.fails(1, &["top"]).contains("--once"), "no terminal");
        assert!(host.fails(1, &["top", "--once", "nimi"]).contains("nimi"));
        mini.stop();
    });
}

/// `nixrun top` between two looks at the terminal's settings.
fn top_on_terminal(host: &Host<'_>, env: &str, columns: u16) -> Pty {
    let (nixrun, root) = (blackbox::nixrun_binary().display().to_string(), host.dir().display());
    let script = format!(
        "stty -g; sh -c 'echo pid=$$.; exec env {env} {nixrun} --host-root {root} top'; echo code=$?.; stty -g; echo end"
    );
    let mut command = host.command("sh");
    command.args(["-c", &script]).env("PATH", std::env::var("PATH").unwrap());
    Pty::spawn(&command, 24, columns)
}

/// What the terminal showed up to the end; its settings must be what they were.
fn end_of_top(mut pty: Pty, settings: &str) {
    pty.expect("\u{1b}[?25h\u{1b}[?1049l");
    pty.expect("code=0.");
    let (_, rest) = pty.wait();
    assert!(rest.contains(settings), "{settings:?} was not restored: {rest:?}");
}

/// The terminal's settings before, and the pid of `nixrun top`.
fn settings_of(pty: &mut Pty) -> (String, i32) {
    let before = pty.expect("pid=");
    let pid = pty.expect(".");
    let settings = before.lines().next().unwrap_or_default().trim().to_owned();
    (settings, pid.trim_end_matches('.').parse().unwrap())
}

#[test]
fn top_on_a_terminal_fits_it_and_gives_it_back() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let mini = host.boot("mini");
        let mut pty = top_on_terminal(host, "", 120);
        let (settings, _) = settings_of(&mut pty);
        pty.expect("\u{1b}[?1049h\u{1b}[?25l");
        pty.expect("NET-TX/s");
        pty.expect("\u{1b}[32mrunning\u{1b}[0m");
        pty.resize(24, 40);
        pty.expect("\u{1b}[H");
        pty.expect("CPU%");
        let narrow = pty.expect("mini");
        assert!(!narrow.contains("LIMIT") && !narrow.contains("AGE"), "{narrow:?}");
        pty.type_in("x");
        pty.type_in("q");
        end_of_top(pty, &settings);
        // Ctrl-C, and no colours for who wants none.
        let mut pty = top_on_terminal(host, "NO_COLOR=1", 120);
        let (settings, _) = settings_of(&mut pty);
        let seen = pty.expect("running");
        assert!(!seen.contains("\u{1b}[32m") && !seen.contains("\u{1b}[1m"), "{seen:?}");
        pty.type_in("\u{3}");
        end_of_top(pty, &settings);
        // A signal.
        let mut pty = top_on_terminal(host, "TERM=dumb", 120);
        let (settings, pid) = settings_of(&mut pty);
        assert!(!pty.expect("running").contains("\u{1b}[32m"));
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        end_of_top(pty, &settings);
        mini.stop();
    });
}

/// A running container, one that is not, and a name for the socket or file.
fn with_two(test: impl FnOnce(&Host<'_>, &str) + Send) {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.install(Kind::Mini, "idle");
        let mini = host.boot("mini");
        test(host, host.path("metrics").to_str().unwrap());
        mini.stop();
    });
}

fn sample(samples: &BTreeMap<Series, f64>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    samples.get(&(format!("nixrun_container_{name}"), labels)).copied()
}

#[test]
fn metrics_are_of_prometheus_format_and_of_every_container() {
    with_two(|host, file| {
        let text = host.ok(&["metrics"]);
        let samples = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let of = |name: &str, labels: &[(&str, &str)]| sample(&samples, name, labels);
        assert_eq!(of("up", &[("name", "mini")]), Some(1.0));
        assert_eq!(of("up", &[("name", "idle")]), Some(0.0));
        assert_eq!(of("state", &[("name", "idle"), ("state", "stopped")]), Some(1.0));
        assert_eq!(of("state", &[("name", "mini"), ("state", "stopped")]), Some(0.0));
        assert!(
            of("memory_bytes", &[("name", "mini")]).unwrap() > 0.0
                && of("memory_bytes", &[("name", "idle")]).is_none()
        );
        assert!(of("cpu_seconds_total", &[("name", "mini"), ("mode", "user")]).is_some());
        assert!(of("network_bytes_total", &[("name", "mini"), ("direction", "receive")]).is_some());
        host.ok(&["pause", "mini"]);
        let paused = parse(&host.ok(&["metrics"])).unwrap();
        assert_eq!(sample(&paused, "state", &[("name", "mini"), ("state", "paused")]), Some(1.0));
        host.ok(&["resume", "mini"]);
        fs::write(file, "old").unwrap();
        assert_eq!(host.ok(&["metrics", "--file", file]), "");
        parse(&fs::read_to_string(file).unwrap()).unwrap();
        let beside = host.sh(&format!("ls -A {} | grep -c metrics", host.dir().display()));
        assert_eq!(beside.trim(), "1", "nothing is left beside it");
        let error = host.fails(1, &["metrics", "--file", "/nonexistent/metrics"]);
        assert!(error.contains("/nonexistent/metrics"), "{error}");
    });
}

/// What a server answers to these bytes; empty when it hangs up.
fn asked(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // Reset by a server that has not read all.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn metrics_are_served_to_many_and_no_client_stops_the_others() {
    with_two(|host, _| {
        host.sh("ip link set lo up");
        let server = host.spawn("metrics", &["metrics", "--listen", "127.0.0.1:0"]);
        let address = wait_for("the address", || {
            let said = server.err();
            said.split_once("Listening at ")?.1.strip_suffix(".\n").map(str::to_owned)
        });
        let connect = || TcpStream::connect(&address).unwrap();
        // More who say nothing than it serves at a time, one who stops midway, one who does not read.
        let silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
        let mut midway = connect();
        midway.write_all(b"GET /metr").unwrap();
        for garbage in [&b"\0\xff\xfe\n\n"[..], b"\x16\x03\x01\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n"] {
            assert!(asked(connect(), garbage).starts_with("HTTP/1.1 4"), "{garbage:?}");
        }
        assert!(asked(connect(), &[b'x'; 9000]).starts_with("HTTP/1.1 431 "));
        for _ in 0..3 {
            let answer = asked(connect(), GET);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            assert!(sample(&parse(body).unwrap(), "up", &[("name", "mini")]).is_some());
        }
        // Slower than a client may be: hung up on, while memory stays what it was.
        let mut rest = Vec::new();
        let _ = midway.read_to_end(&mut rest);
        assert_eq!(rest, b"");
        drop(silent);
        assert_eq!(server.stop().code, Some(0));
    });
}

#[test]
fn a_metrics_socket_goes_with_its_server_and_replaces_a_dead_one() {
    with_two(|host, path| {
        let listening = || UnixStream::connect(path).ok();
        let server = host.spawn("metrics", &["metrics", "--listen", path]);
        let stream = wait_for("the server", listening);
        parse(asked(stream, GET).split_once("\r\n\r\n").unwrap().1).unwrap();
        let error = host.fails(1, &["metrics", "--listen", path]);
        assert!(error.contains("somebody listens"), "{error}");
        server.signal(Signal::SIGKILL);
        server.wait();
        assert!(fs::exists(path).unwrap());
        let server = host.spawn("metrics", &["metrics", "--listen", path]);
        wait_for("the next server", listening);
        assert_eq!(server.stop().code, Some(0));
        assert!(!fs::exists(path).unwrap());
        fs::write(path, "kept").unwrap();
        assert!(host.fails(1, &["metrics", "--listen", path]).contains("no socket"));
        assert_eq!(fs::read(path).unwrap(), b"kept");
        let wrong = host.run(&["metrics", "--listen", "localhost:1"]);
        let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert!(wrong.status.code() == Some(2) && words.contains("127.0.0.1:9750"), "{words}");
    });
}

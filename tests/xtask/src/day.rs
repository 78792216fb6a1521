//! `cargo xtask day`: a day with nixrun in ten commands, run on a host of its own made of namespaces, and what they said.

use std::fs;
use std::process::ExitCode;

use fixture::Kind;
use support::Host;

use crate::Result;
use crate::demo::build_nixrun;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Put it into README.md, where the last one stands
    #[arg(long)]
    write: bool,
    /// Build nixrun without optimisation, which takes a fraction of the time
    #[arg(long)]
    debug: bool,
}

/// What stands before and behind it in README.md.
const MARKS: [&str; 2] = ["<!-- cargo xtask day -->\n```\n", "```\n<!-- end of the day -->\n"];

/// The commands; the systems are the sample container's two releases.
const DAY: &[&str] = &[
    "nixrun create shop --system-path {first} --port 8080:80",
    "nixrun start shop",
    "nixrun exec shop -- systemctl is-system-running --wait",
    "curl -s --retry 9 --retry-connrefused http://127.0.0.1:8080/",
    "nixrun logs shop -u nginx -n 2",
    "nixrun top --once",
    "nixrun update shop --system-path {second}",
    "curl -s --retry 9 --retry-connrefused http://127.0.0.1:8080/",
    "nixrun diff shop",
    "nixrun rollback shop",
    "nixrun stop shop",
    "nixrun export shop shop.tar.zst",
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err("a day needs root: it boots a container".into());
    }
    let nixrun = build_nixrun(args.debug)?;
    let systems = [1, 2].map(|release| fixture::build(Kind::Web, release));
    let [first, second] = systems;
    let (first, second) = (first?, second?);
    let day = Host::with(|host| -> support::Result<String> {
        // The store, and no container.
        let conf = fixture::install(&first, host.root(), "shop").expect("the fixture installs");
        fs::remove_file(conf).expect("its conf can be removed");
        let mut day = String::new();
        for line in DAY {
            let line = line
                .replace("{first}", &first.system.to_string_lossy())
                .replace("{second}", &second.system.to_string_lossy());
            let script = format!(
                "nixrun() {{ {} --host-root {} \"$@\"; }}; {line} 2>&1",
                nixrun.display(),
                host.root().display()
            );
            let output = host.command("sh").args(["-c", &script]).current_dir(host.root()).output();
            let output = output.expect("a shell starts");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{line}: {}: {said}", output.status);
            day += &format!("# {line}\n{said}");
        }
        Ok(day)
    })?;
    if !args.write {
        print!("{day}");
        return Ok(ExitCode::SUCCESS);
    }
    let readme = fs::read_to_string("README.md")?;
    let [begin, end] = MARKS;
    let old = readme.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(old, _)| old);
    let old = old.ok_or("README.md has no place for it")?;
    fs::write("README.md", readme.replace(&format!("{begin}{old}{end}"), &format!("{begin}{day}{end}")))?;
    println!("README.md has a new day");
    Ok(ExitCode::SUCCESS)
}

//! `cargo xtask fixture`: the sample containers by hand.

use std::path::PathBuf;
use std::process::ExitCode;

use fixture::{Fixture, Kind, nspawn};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// mini, base, web, big or synth
    kind: String,
    /// For synth: number of store paths
    paths: Option<usize>,
    /// 1 or 2: they differ in the message of the web server
    #[arg(long, default_value_t = 1)]
    release: u32,
    /// Directory to prepare as a host that has the container
    #[arg(long)]
    host_root: Option<PathBuf>,
    /// Name of the container on that host [default: the fixture's own]
    #[arg(long)]
    name: Option<String>,
    /// Where packages and store are kept [default: $NIXRUN_FIXTURE_CACHE or target/fixture]
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Boot it under systemd-nspawn, as a check of the fixture itself
    #[arg(long)]
    verify: bool,
    /// Print what was built as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> crate::Result<ExitCode> {
    let kind: Kind = match args.paths {
        Some(n) => format!("{}:{n}", args.kind).parse()?,
        None => args.kind.parse()?,
    };
    let cache = args.cache.clone().unwrap_or_else(fixture::default_cache);
    let built = fixture::build_in(&cache, kind, args.release)?;
    let name = args.name.as_deref().unwrap_or(&built.name);
    let conf = args.host_root.as_ref().map(|root| fixture::install(&built, root, name)).transpose()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&built)?);
    } else {
        println!("{}: {} paths, {} MB", built.system.display(), built.paths, built.bytes / 1_000_000);
        println!("store: {}/store", built.nix.display());
        if let Some(conf) = conf {
            println!("conf:  {}", conf.display());
        }
    }
    if args.verify {
        verify(&built)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Boots, asks for the page, stops; an error where any of it goes wrong.
fn verify(built: &Fixture) -> crate::Result<()> {
    fixture::require(nspawn::PROGRAMS)?;
    let host = tempfile::tempdir()?;
    fixture::install(built, host.path(), &built.name)?;
    let (ready, page, status) = nspawn::in_host(|| {
        let container = nspawn::Container::boot(built, host.path())?;
        let page = nspawn::http_get(built.http_address(), "/")?;
        Ok((container.ready_after, page, container.stop()?))
    })?;
    println!(
        "systemd-nspawn: ready after {} ms, answers {}, stops with {status}",
        ready.as_millis(),
        page.trim()
    );
    if status == 0 { Ok(()) } else { Err(format!("{} did not stop cleanly", built.name).into()) }
}

//! A supervisor of containers: starts those that are named and starts again what fails, until its standard input ends.
//! `cargo run -p nixrun --example supervisor -- / web mail db` for three that are configured on this host.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, io, thread};

use nixrun::embed::{Container, Launch};
use runtime::{HostPaths, Outcome};

/// How long a container may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before what failed is started again.
const PAUSE: Duration = Duration::from_millis(100);

/// One container that is to run.
struct Kept {
    name: String,
    running: Mutex<Option<Arc<Container>>>,
    over: AtomicBool,
}

impl Kept {
    /// Has it run until it is shut down, by itself or by us.
    fn keep(&self, paths: &HostPaths) {
        while !self.over.load(Ordering::Acquire) {
            match self.once(paths) {
                Ok(Some(Outcome::PoweredOff | Outcome::Exited(0)) | None) => return,
                Ok(Some(outcome)) => println!("{} ended: {outcome:?}", self.name),
                Err(error) => eprintln!("{error}"),
            }
            thread::sleep(PAUSE);
        }
    }

    /// Runs it once; nothing comes of it when all is over.
    fn once(&self, paths: &HostPaths) -> Result<Option<Outcome>, Box<dyn Error>> {
        let container = {
            let mut running = self.running.lock().unwrap();
            if self.over.load(Ordering::Acquire) {
                return Ok(None);
            }
            let started = Arc::new(Launch::configured(&self.name, paths)?.start()?);
            *running = Some(Arc::clone(&started));
            started
        };
        // One that does not become ready is killed when it is dropped.
        container.wait_ready(PATIENCE).inspect_err(|_| drop(self.running.lock().unwrap().take()))?;
        println!("{} is ready: process {}", self.name, container.state().leader.pid);
        Ok(Some(container.wait()?.outcome))
    }

    fn stop(&self) {
        self.over.store(true, Ordering::Release);
        let running = self.running.lock().unwrap().take();
        if let Some(container) = running
            && let Err(error) = container.stop()
        {
            eprintln!("{error}");
        }
    }
}

fn main() {
    let mut arguments = env::args().skip(1);
    let paths = HostPaths::below(arguments.next().unwrap_or_else(|| "/".to_owned()));
    let new = |name| Kept { name, running: Mutex::new(None), over: AtomicBool::new(false) };
    let kept: Vec<Kept> = arguments.map(new).collect();
    thread::scope(|scope| {
        kept.iter().for_each(|one| drop(scope.spawn(|| one.keep(&paths))));
        let _ = io::stdin().read_to_end(&mut Vec::new());
        kept.iter().for_each(|one| drop(scope.spawn(|| one.stop())));
    });
}

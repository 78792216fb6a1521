//! What goes on beside a supervised container, in a thread of its own that ends with the supervision: the registration
//! with systemd-machined, and systemd's wish to stop the scope. Either may have to wait for a service that does not
//! answer, which neither the container's start nor its end may.

use std::time::Duration;

use runtime::HostPaths;
use runtime::supervisor::Stopper;

use crate::dbus::scope::Scope;
use crate::local_stream::CallOff;
use crate::machined::{self, Machine, RegisterError};

/// How long systemd-machined may take; it may have to be started first.
const TIMEOUT: Duration = Duration::from_secs(25);

/// What is to be done beside the supervisor.
pub(super) struct Companion<'a> {
    pub(super) machine: Option<Machine>,
    pub(super) scope: Option<&'a mut Scope>,
    pub(super) stopper: Stopper,
    pub(super) paths: &'a HostPaths,
}

impl Companion<'_> {
    /// Calls `supervise` on this thread and does the rest on another one meanwhile, or not at all where there is no
    /// systemd. What goes wrong is told to `warn`. The registration is removed at the end.
    pub(super) fn beside<T>(self, warn: &(dyn Fn(String) + Sync), supervise: impl FnOnce() -> T) -> T {
        if self.machine.is_none() && self.scope.is_none() {
            return supervise();
        }
        let call_off = match CallOff::new() {
            Ok(call_off) => call_off,
            Err(error) => {
                warn(format!("cannot make an eventfd: {error}; the container is not registered"));
                return supervise();
            }
        };
        let (paths, name) = (self.paths, self.machine.as_ref().map(|machine| machine.name.clone()));
        let (result, registered) = std::thread::scope(|threads| {
            // Whatever ends this closure ends the thread, which the scope waits for.
            let ending = Ending(&call_off);
            let builder = std::thread::Builder::new().name("machined".to_owned());
            let thread = builder.spawn_scoped(threads, || self.run(warn, &call_off));
            if let Err(error) = &thread {
                warn(format!("cannot start a thread: {error}; the container is not registered"));
            }
            let result = supervise();
            drop(ending);
            (result, thread.is_ok_and(|thread| thread.join().unwrap_or(false)))
        });
        if let Some(name) = name.filter(|_| registered) {
            machined::unregister(&name, paths);
        }
        result
    }

    /// Returns whether there may be a registration to be removed.
    fn run(self, warn: &(dyn Fn(String) + Sync), call_off: &CallOff) -> bool {
        let registered = self.machine.is_some_and(|machine| {
            match machined::register(&machine, self.paths, TIMEOUT, call_off) {
                Ok(()) => true,
                // What it was told may have been heard all the same.
                Err(_) if call_off.is_called_off() => true,
                Err(RegisterError::Absent) => false,
                Err(error) => {
                    warn(error.to_string());
                    false
                }
            }
        });
        if let Some(scope) = self.scope {
            while scope.stop_requested(call_off) {
                self.stopper.stop();
            }
        }
        registered
    }
}

/// Calls off when it is dropped, by a panic for one.
struct Ending<'a>(&'a CallOff);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.now();
    }
}

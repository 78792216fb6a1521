//! Sockets that a service manager opened for us, to be handed on to the container (sd_listen_fds(3)).

use std::ffi::OsStr;

/// How many there are: descriptors 3 and up, open since before this process began, so that nothing of ours can have
/// their numbers. None when they were meant for another process.
#[must_use]
pub fn inherited() -> u32 {
    let variable = |name: &str| std::env::var_os(name);
    count(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id())
}

fn count(pid: Option<&OsStr>, number: Option<&OsStr>, own: u32) -> u32 {
    let parse = |text: Option<&OsStr>| text?.to_str()?.parse::<u32>().ok();
    if parse(pid) == Some(own) { parse(number).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_us_counts() {
        let count = |pid: &str, number: &str| count(Some(pid.as_ref()), Some(number.as_ref()), 42);
        assert_eq!(count("42", "2"), 2);
        for (pid, number) in [("41", "2"), ("42", "-1"), ("42", ""), ("", "2"), ("42", "two")] {
            assert_eq!(count(pid, number), 0, "{pid} {number}");
        }
        assert_eq!(super::count(None, Some("2".as_ref()), 42), 0);
    }
}

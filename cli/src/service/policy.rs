//! When a container of our own is started again, and when no more: as systemd does with `Restart=`, `RestartSteps=` and
//! `StartLimitBurst=`. Pure; times are of the monotonic clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use crate::json::Restart;

/// The first pause before a start; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A container that ran for so long begins with the first pause anew.
pub const CALM: Duration = Duration::from_secs(60);
/// So many starts …
pub const LIMIT: usize = 5;
/// … in so long are the last ones: systemd's own limit.
pub const LIMIT_INTERVAL: Duration = Duration::from_secs(10);

/// How a supervisor ended that nobody had asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its container ended well.
    Well,
    /// Its container failed, or it was killed.
    Badly,
}

/// Whether a policy starts a container again after such an end.
#[must_use]
pub fn wants(policy: Restart, ended: Ended) -> bool {
    match policy {
        Restart::No => false,
        Restart::OnFailure => ended == Ended::Badly,
        Restart::Always => true,
    }
}

/// The pauses between starts.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    starts: VecDeque<Instant>,
}

impl Backoff {
    /// The container was started at `now` for the first time.
    #[must_use]
    pub fn new(now: Instant) -> Backoff {
        Backoff { pause: FIRST_PAUSE, starts: VecDeque::from([now]) }
    }

    /// How long to wait before the next start, after an end at `now`; `None` when there were too many.
    pub fn next(&mut self, now: Instant) -> Option<Duration> {
        if self.starts.back().is_some_and(|last| now.duration_since(*last) >= CALM) {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        let at = now + pause;
        self.starts.retain(|start| at.duration_since(*start) < LIMIT_INTERVAL);
        if self.starts.len() >= LIMIT {
            return None;
        }
        self.starts.push_back(at);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_begin_anew_after_a_calm_run() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        let mut expected = FIRST_PAUSE;
        for _ in 0..12 {
            // Longer than the limit of starts counts, shorter than calm.
            now += Duration::from_secs(20);
            let pause = backoff.next(now).unwrap();
            assert_eq!(pause, expected);
            expected = (expected * 2).min(LONGEST_PAUSE);
            now += pause;
        }
        assert_eq!(expected, LONGEST_PAUSE);
        assert_eq!(backoff.next(now + CALM), Some(FIRST_PAUSE));
    }

    #[test]
    fn the_fifth_start_in_ten_seconds_is_the_last() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        for _ in 1..LIMIT {
            now += backoff.next(now).unwrap();
        }
        assert_eq!(backoff.next(now), None);
    }

    #[test]
    fn policies_want_what_they_say() {
        let table =
            [(Restart::No, false, false), (Restart::OnFailure, false, true), (Restart::Always, true, true)];
        for (policy, well, badly) in table {
            assert_eq!(
                (wants(policy, Ended::Well), wants(policy, Ended::Badly)),
                (well, badly),
                "{policy:?}"
            );
        }
    }
}

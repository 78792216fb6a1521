//! Every exit code of nixrun. `--help` and the README show [`TABLE`]; nothing else in the program names a number.

/// Everything went well; of a container, it was shut down.
pub const SUCCESS: u8 = 0;
/// What was asked for failed, and one sentence on stderr says why; or PID 1 was ended by a signal.
pub const FAILURE: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// `exec` failed before its command was started.
pub const EXEC_FAILED: u8 = 125;
/// `exec` found its command and could not execute it.
pub const NOT_EXECUTABLE: u8 = 126;
/// `exec` did not find its command.
pub const NOT_FOUND: u8 = 127;
/// The container asked to be rebooted and nixrun runs in a unit: `RestartForceExitStatus=133` of `container@.service`.
pub const REBOOT: u8 = 133;

/// What a supervisor tells its keeper by: somebody had asked it to end. Nobody else sees it.
pub const ASKED: u8 = 134;

/// The table of exit codes in `--help`, whose first column is wide enough for two blanks.
pub const TABLE: &str = "\
Exit codes:
  0      Done; of boot and run: the container was shut down.
  1      It failed, and the sentence on stderr says why; of boot and run also: PID 1 was ended by a
         signal. Of doctor: a check failed.
  2      The command line is wrong.
  125    exec: the command was not started.
  126    exec: the command cannot be executed.
  127    exec: the command was not found.
  128+N  exec: the command was ended by signal N.
  133    boot and run in a systemd unit: the container asked for a reboot.
  other  boot and run: what PID 1 exited with (its own 133 becomes 1, as with systemd-nspawn).
         exec: what the command exited with.
What is said of exec is true of run NAME, login and root-login, too.";

/// The rows of [`TABLE`]: a code, and what it means.
#[must_use]
pub fn rows() -> Vec<(&'static str, String)> {
    let mut rows: Vec<(&str, String)> = Vec::new();
    for line in TABLE.lines().filter(|line| line.starts_with(' ')) {
        match (line.get(..9).map(str::trim), line.get(9..)) {
            (Some(""), Some(more)) => {
                if let Some((_, meaning)) = rows.last_mut() {
                    *meaning += " ";
                    *meaning += more.trim();
                }
            }
            (Some(code), Some(meaning)) => rows.push((code, meaning.trim().to_owned())),
            _ => {}
        }
    }
    rows
}

/// What [`TABLE`] says behind its rows.
#[must_use]
pub fn note() -> String {
    let behind: Vec<&str> = TABLE.lines().skip(1).filter(|line| !line.starts_with(' ')).collect();
    behind.join(" ")
}

/// The code for a PID 1 that exited by itself: its own, but for 133, which only a reboot may mean.
#[must_use]
pub fn of_pid1(code: u8) -> u8 {
    if code == REBOOT { FAILURE } else { code }
}

/// The code for a command of `exec` that a signal ended, as shells report it.
#[must_use]
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal).ok().and_then(|n| n.checked_add(128)).unwrap_or(FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code() {
        for code in [SUCCESS, FAILURE, USAGE, EXEC_FAILED, NOT_EXECUTABLE, NOT_FOUND, REBOOT] {
            assert!(TABLE.lines().any(|l| l.starts_with(&format!("  {code:<7}"))), "{code}");
        }
        assert!(TABLE.lines().all(|line| line.len() <= 100));
        let rows = rows();
        assert!(note().starts_with("What is said of exec"), "{:?}", note());
        assert_eq!(rows.len(), 9, "{rows:?}");
        assert!(rows.iter().all(|(code, meaning)| !code.is_empty() && meaning.ends_with('.')), "{rows:?}");
    }

    #[test]
    fn pid_1_cannot_pretend_a_reboot() {
        assert_eq!([0, 7, 133, 255].map(of_pid1), [0, 7, 1, 255]);
    }

    #[test]
    fn signals_are_reported_as_shells_do() {
        assert_eq!([9, 15, 64, 200, -1].map(of_signal), [137, 143, 192, 1, 1]);
    }
}

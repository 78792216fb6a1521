//! Which of its two meanings `run` has: a command in a container that runs, or a new container.

use std::ffi::OsString;

use super::RunArgs;

/// Said where the words can mean neither.
const EITHER: &str = "give a container that runs and a command (run NAME -- COMMAND), or the root of a new container \
                      (run -D DIR or -i IMAGE)";

impl RunArgs {
    /// Tells a container's name from a command; `words` is the whole command line.
    pub(super) fn settle(&mut self, words: &[OsString]) -> Result<(), String> {
        let is_new = self.directory.is_some() || self.image.is_some();
        let separated = self.command.get(1).is_some_and(|word| word == "--");
        // A `--` in front of them all makes everything behind it the command, a further `--` included. No option takes
        // `--` as its value.
        let before = words.len().checked_sub(self.command.len() + 1).and_then(|at| words.get(at));
        let is_command = before.is_some_and(|word| word == "--") && !self.command.is_empty();
        match (is_new, is_command) {
            (true, false) if separated => Err(format!(
                "the root of a new container and the name {:?} of one that runs cannot be used together; leave one out, \
                 or give the new one its name by -M",
                self.command[0]
            )),
            (true, _) => Ok(()),
            (false, true) => Err(EITHER.to_owned()),
            (false, false) => self.settle_inside(separated),
        }
    }

    fn settle_inside(&mut self, separated: bool) -> Result<(), String> {
        let words = std::mem::take(&mut self.command);
        let (name, command) = match words.split_first() {
            Some((name, command)) => {
                (name.to_string_lossy().into_owned(), &command[usize::from(separated)..])
            }
            None => return Err(EITHER.to_owned()),
        };
        if command.is_empty() {
            return Err(EITHER.to_owned());
        }
        if *self != RunArgs::default() {
            return Err(format!(
                "the options of `run` are those of a new container, and {name:?} would be one that runs; name the new \
                 one's root by -D or -i, or use `nixrun exec`"
            ));
        }
        (self.inside, self.command) = (Some(name), command.to_vec());
        Ok(())
    }
}

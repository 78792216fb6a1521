//! `nixrun completions` and `man`.

use super::{Result, missing};
use crate::args::{CompletionsArgs, ManArgs};
use crate::output::Output;

pub(super) fn completions(_args: &CompletionsArgs, _out: &Output) -> Result {
    missing("completions")
}

pub(super) fn man(_args: &ManArgs, _out: &Output) -> Result {
    missing("man")
}

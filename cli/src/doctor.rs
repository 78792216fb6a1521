//! What this host has and lacks for containers, found out without changing anything.

use std::fmt;

use runtime::HostPaths;
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{Colour, paint};

mod host;
mod kernel;
mod network;

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is as containers need it.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What the administrator can do about it; `None` when nothing is wrong.
    pub fix: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As needed.
    Ok,
    /// Containers start, and something about them will not be as expected.
    Warn,
    /// Containers, or those with a network of their own, cannot start.
    Fail,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        })
    }
}

impl Status {
    fn colour(self) -> Colour {
        match self {
            Status::Ok => Colour::Green,
            Status::Warn => Colour::Yellow,
            Status::Fail => Colour::Red,
        }
    }
}

impl Check {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Check {
        Check { name: name.into(), status: Status::Ok, detail: detail.into(), fix: None }
    }

    fn warn(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { name: name.into(), status: Status::Warn, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn fail(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { status: Status::Fail, ..Check::warn(name, detail, fix) }
    }
}

/// Looks at everything.
///
/// `foreign_drops` names the chains of other nftables tables that hook forwarded packets with policy drop, such as
/// `inet filter forward`; a drop there wins over our accept. `None` when the tables could not be read.
#[must_use]
pub fn doctor(paths: &HostPaths, foreign_drops: Option<&[String]>) -> Vec<Check> {
    let mut checks = kernel::checks(paths);
    checks.extend(host::checks(paths));
    checks.extend(network::checks(paths, foreign_drops));
    checks
}

/// The worst status among the checks.
#[must_use]
pub fn worst(checks: &[Check]) -> Status {
    checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
}

/// The checks for a person: a line each, and below it what can be done.
#[must_use]
pub fn report(checks: &[Check], colours: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let status = format!("{:<4}", check.status);
        let status = if colours { paint(&status, check.status.colour()) } else { status };
        text += &format!("{status}  {:<width$}  {}\n", check.name, check.detail);
        if let Some(fix) = &check.fix {
            text += &format!("{:6}{:width$}  -> {fix}\n", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests;

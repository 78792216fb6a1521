//! The plan of a container and its network as one tree.

use std::fmt;

use super::launch::Planned;

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.container)?;
        if let Some(network) = &self.network {
            writeln!(f, "{network}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

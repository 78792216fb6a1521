//! The plan of a container and its network as one tree.

use std::fmt;

use super::launch::Planned;
use super::scope::UnitPlan;

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.container)?;
        if let Some(network) = &self.network {
            writeln!(f, "{network}")?;
        }
        if let Some(unit) = &self.unit {
            writeln!(f, "{unit}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for UnitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "systemd")?;
        if let Some(scope) = &self.scope {
            writeln!(f, "  scope {} in {}, delegated", scope.name, scope.slice)?;
            for property in &scope.properties {
                writeln!(f, "    {property}")?;
            }
        }
        if self.register {
            writeln!(f, "  registered with systemd-machined while the container runs")?;
        }
        Ok(())
    }
}

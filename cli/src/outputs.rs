//! What commands print with `--json`: the schema of each, for programs that read it. docs/schema/ has them as files; a
//! key is added to an output, and never removed or given another meaning.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::{archive, autostart, doctor, events, inspect, json, life, logs, ops, stats, systems};

/// Makes the schema of a type.
type Of = fn() -> Schema;

/// The commands that print JSON, and the type of what each prints; that of a line where they print lines.
const OUTPUTS: &[(&str, Of)] = &[
    ("autostart", schema::<Vec<autostart::Row>>),
    ("create", schema::<life::Created>),
    ("diff", schema::<systems::Difference>),
    ("doctor", schema::<Vec<doctor::Check>>),
    ("events", schema::<events::Event>),
    ("generations", schema::<Vec<systems::ListedGeneration>>),
    ("import", schema::<archive::Imported>),
    ("inspect", schema::<inspect::Inspection>),
    ("list", schema::<Vec<ops::Listed>>),
    ("logs", schema::<logs::LogLine>),
    ("reclaim", schema::<Vec<ops::Reclaimed>>),
    ("rollback", schema::<systems::Updated>),
    ("show-host-key", schema::<life::HostKey>),
    ("show-ip", schema::<life::Addresses>),
    ("stats", schema::<stats::Stats>),
    ("status", schema::<ops::Listed>),
    ("top", schema::<Vec<stats::Stats>>),
    ("update", schema::<systems::Updated>),
];

/// The schema of what `command` prints with `--json`: JSON Schema, draft 2020-12.
#[must_use]
pub fn schema_of(command: &str) -> Option<Schema> {
    OUTPUTS.iter().find(|(name, _)| *name == command).map(|(_, schema)| schema())
}

/// The commands that have one, by name.
pub fn commands() -> impl Iterator<Item = &'static str> {
    OUTPUTS.iter().map(|(name, _)| *name)
}

fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>()
}

/// The schema of /etc/nixrun/NAME.json.
#[must_use]
pub fn configuration() -> Schema {
    json::schema()
}

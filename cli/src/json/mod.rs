//! `/etc/nixrun/NAME.json`, the typed configuration of a container: everything that `NAME.conf` can say and all that it
//! cannot. Reading checks each value alone; what they mean together is [`crate::nixos_boot`]'s business.

mod checked;
mod error;
mod grammar;
mod keyed;
mod model;
mod values;

use std::path::{Path, PathBuf};

pub use error::JsonError;
pub use grammar::DeviceAccess;
pub use keyed::Keyed;
pub use model::{
    AllowedDevice, Bandwidth, Bind, Cpu, CpuSet, Credential, Document, ExtraVeth, ForwardPort, Io,
    KernelView, Memory, Overlay, Pids, Pivot, Resources, Swap, SystemCalls,
};
pub use values::*;

/// Largest file that is read: what a person or a module writes is far smaller.
const LONGEST: u64 = 4 << 20;

/// A file that was read.
#[derive(Debug, Clone)]
pub struct Json {
    /// The file, for messages.
    pub file: PathBuf,
    /// What it says.
    pub document: Document,
}

/// Reads the configuration in `file`; `None` when there is none.
///
/// # Errors
/// [`JsonError`].
pub fn read(file: &Path) -> Result<Option<Json>, JsonError> {
    let failed = |source| JsonError::Read { file: file.to_owned(), source };
    let size = match std::fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if size > LONGEST {
        return Err(failed(std::io::Error::other(format!("it is larger than {LONGEST} bytes"))));
    }
    parse(&std::fs::read(file).map_err(failed)?, file).map(Some)
}

/// Reads a configuration from `text`; `file` only appears in messages.
///
/// # Errors
/// [`JsonError::Wrong`] with the place and path of what is wrong.
pub fn parse(text: &[u8], file: &Path) -> Result<Json, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let keyed::Object(document) = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|wrong| JsonError::wrong(file, wrong.path(), wrong.inner()))?;
    deserializer.end().map_err(|error| JsonError::syntax(file, &error))?;
    Ok(Json { file: file.to_owned(), document })
}

/// The schema that [`parse`] follows: JSON Schema, draft 2020-12.
#[must_use]
pub fn schema() -> schemars::Schema {
    let mut schema = schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), "A container of nixrun".into());
    schema
}

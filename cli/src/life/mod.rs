//! The beginning and the end of a configured container, and its settings in between.

mod conf;
pub(crate) mod create;
pub(crate) mod destroy;
pub mod edit;
mod look;
mod places;
mod pool;
pub mod remove;

pub use create::{CreateRequest, Created, Creation, create};
pub(crate) use destroy::is_declarative;
pub use destroy::{Destroyed, Destruction, Doomed, destroy, doomed};
pub use look::{Addresses, HostKey, addresses, host_key};
pub(crate) use pool::{Fresh, fresh};

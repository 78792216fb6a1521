//! The error of an operation.

use runtime::ErrorKind;

/// Why an operation failed, in one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// From planning, mounting, launching or supervising.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// From the network.
    #[error(transparent)]
    Network(#[from] netsetup::Error),
    /// From cleaning the network up.
    #[error(transparent)]
    Cleanup(#[from] netsetup::Errors),
    /// From finding a container's configuration.
    #[error(transparent)]
    Find(#[from] crate::configured::FindError),
    /// From the files that configure a container.
    #[error(transparent)]
    Settings(#[from] crate::settings::SettingsError),
    /// From the configuration of a container.
    #[error(transparent)]
    Boot(#[from] crate::nixos_boot::BootError),
    /// From the options of `run`.
    #[error(transparent)]
    Run(#[from] crate::nspawn_run::RunError),
    /// From asking systemd for a scope.
    #[error(transparent)]
    Scope(#[from] crate::dbus::scope::ScopeError),
    /// From the settings of the host.
    #[error(transparent)]
    HostSettings(#[from] crate::host_settings::HostSettingsError),
    /// From settings by key.
    #[error(transparent)]
    Edit(#[from] crate::life::edit::EditError),
    /// What the operations here find themselves.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether a command inside a container could not be executed, and then whether it does not exist.
    #[must_use]
    pub fn payload_missing(&self) -> Option<bool> {
        match self {
            Error::Runtime(error) if error.kind() == ErrorKind::PayloadMissing => Some(true),
            Error::Runtime(error) if error.kind() == ErrorKind::Payload => Some(false),
            _ => None,
        }
    }
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

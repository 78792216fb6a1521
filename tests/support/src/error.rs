use std::process::Output;

/// Why something about the pretend host did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call or a file.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` ended with {status}: {output}")]
    Program {
        /// The program with its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote, both streams.
        output: String,
    },
    /// Something is not as it must be.
    #[error("{0}")]
    Unexpected(String),
}

/// What fails here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err`: what was being done.
    pub fn doing<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Error {
        |source| Error::Io { doing: doing.into(), source: source.into() }
    }

    /// The error of a program that has ended with one.
    pub(crate) fn program(command: String, output: &Output) -> Error {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let output_text = String::from_utf8_lossy(&text).trim().to_owned();
        Error::Program { command, status: output.status.to_string(), output: output_text }
    }
}

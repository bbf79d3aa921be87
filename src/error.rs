//! Errors as an operator reads them: what failed, where, why.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

/// What failed, and the cause below it. Printed once, at the edge of the program, by its `Display`.
#[derive(Debug)]
pub struct Error {
    what: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure that explains itself.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            cause: None,
        }
    }

    /// A failure with its cause.
    pub fn because(
        what: impl Into<String>,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            what: what.into(),
            cause: Some(cause.into()),
        }
    }

    /// A failure of the operating system at a path: `cannot ACT PATH: why`.
    pub fn at(act: &str, path: &Path, cause: io::Error) -> Self {
        Self::because(format!("cannot {act} {}", path.display()), cause)
    }
}

impl Error {
    /// What the operating system says, where it is the cause.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let cause = self.cause.as_ref()?.downcast_ref::<io::Error>()?;
        Some(cause.kind())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl StdError for Error {}

/// Shorthand for this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! What a message asks for, read by the payload types of the plugins: the policy has to judge what they will do.

use crate::message::payload::{
    COMMAND, Command, DIRECTORY_PUT, ENGINE_COMMAND, FILE_GET, FILE_LIST, FILE_PUT, FileRequest,
    Parameters, SCRIPT,
};
use crate::message::{Message, PayloadError};
use crate::schedule::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Ask<'a> {
    /// The message type.
    pub kind: &'a str,
    /// The name of a script.
    pub script: Option<&'a str>,
    /// What runs, and how; of a script without `argv`.
    pub run: Option<&'a Command>,
    /// The file or folder.
    pub path: Option<&'a Path>,
    /// Whether the path is where it really is: then those of rules are looked up too.
    pub real: bool,
}

impl Ask<'_> {
    /// Whether all below the path is concerned as well.
    pub fn is_tree(&self) -> bool {
        self.kind == DIRECTORY_PUT
    }
}

/// A message as it was read.
#[derive(Default)]
pub struct Asked {
    kind: String,
    script: Option<String>,
    run: Option<Command>,
    path: Option<PathBuf>,
    entries: Vec<Arc<Entry>>,
}

impl Asked {
    /// Reads what the plugin will read. `pipe` is where a line goes that names none.
    pub fn read(message: &Message, pipe: Option<&Path>) -> Result<Self, PayloadError> {
        let mut asked = Self {
            kind: message.kind.clone(),
            ..Self::default()
        };
        match message.kind.as_str() {
            COMMAND => asked.run = Some(message.read()?),
            SCRIPT => {
                asked.script = Some(message.read::<Parameters>()?.name);
                asked.run = Some(message.read()?);
            }
            ENGINE_COMMAND => {
                let given = message.read::<Parameters>()?.pipe.map(PathBuf::from);
                asked.path = given.or_else(|| pipe.map(Path::to_owned));
            }
            FILE_PUT | DIRECTORY_PUT | FILE_GET | FILE_LIST => {
                asked.path = Some(message.read::<FileRequest>()?.path.into());
            }
            // Who has no scheduler takes no set.
            #[cfg(feature = "schedule")]
            crate::message::payload::SCHEDULE_SET => {
                // A set that the scheduler does not take changes nothing, whatever is in it.
                let set = crate::plugin::schedule::read(message)?;
                asked.entries = crate::schedule::read_set(&set)
                    .map(|(_, entries)| entries)
                    .unwrap_or_default();
            }
            _ => {}
        }
        Ok(asked)
    }

    /// A message of which nothing but its type could be read.
    pub fn unread(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            ..Self::default()
        }
    }

    /// The request itself.
    pub fn ask(&self) -> Ask<'_> {
        Ask {
            kind: &self.kind,
            script: self.script.as_deref(),
            run: self.run.as_ref(),
            path: self.path.as_deref(),
            real: false,
        }
    }

    /// What the entries of a schedule would run.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }
}

/// What a run of an entry asks for: the same as a message would.
pub fn of_entry(entry: &Entry) -> Ask<'_> {
    Ask {
        kind: if entry.script.is_some() {
            SCRIPT
        } else {
            COMMAND
        },
        script: entry.script.as_ref().map(|(name, _)| name.as_str()),
        run: Some(&entry.command),
        ..Ask::default()
    }
}

//! Environment and flags over the file.

use super::{Config, SETTINGS, Setting};
use crate::error::{Error, Result};

pub(super) fn apply(
    config: &mut Config,
    environment: &dyn Fn(&str) -> Option<String>,
    flags: &[(&'static Setting, String)],
) -> Result<()> {
    for setting in SETTINGS {
        let Some(outside) = &setting.outside else {
            continue;
        };
        // An empty variable is an unset one, as service files write it.
        if let Some(value) = environment(outside.variable).filter(|v| !v.is_empty()) {
            set(config, setting, &value, outside.variable)?;
        }
    }
    for setting in SETTINGS {
        let mut values = flags
            .iter()
            .filter(|(s, _)| std::ptr::eq(*s, setting))
            .map(|(_, value)| value.as_str());
        let Some(first) = values.next() else { continue };
        // A flag given again adds to a list, else the last one counts.
        let value = values.fold(first.to_owned(), |all, next| {
            if setting.is_list() {
                format!("{all},{next}")
            } else {
                next.to_owned()
            }
        });
        let flag = setting.outside.as_ref().and_then(|outside| outside.flag);
        let name = format!("--{}", flag.unwrap_or_default());
        set(config, setting, &value, &name)?;
    }
    Ok(())
}

fn set(config: &mut Config, setting: &Setting, value: &str, name: &str) -> Result<()> {
    if setting.key == "identifier_file" {
        // It goes before an identifier that stands in the file, or comes from the environment before a flag.
        config.identifier = None;
    }
    setting
        .set(config, value)
        .map_err(|reason| Error::new(format!("{name}: {reason}")))
}

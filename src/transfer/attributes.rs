//! Mode, owner, group and time of what is put.

use crate::message::ErrorCode;
use crate::message::payload::Error;
use crate::sys::user::{self, LookupError};
use std::fs::{File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::time::{Duration, SystemTime};

/// What can be set of a mode.
const MODE: u32 = 0o7777;

/// What is to be set; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<SystemTime>,
}

/// Reads what a request says, and remembers the last names: thousands of files have the same.
#[derive(Debug, Default)]
pub struct Reader {
    owner: Option<(String, u32)>,
    group: Option<(String, u32)>,
}

impl Reader {
    pub fn read(
        &mut self,
        mode: Option<&str>,
        owner: Option<&str>,
        group: Option<&str>,
        mtime: Option<f64>,
    ) -> Result<Attributes, Error> {
        Ok(Attributes {
            mode: mode.map(read_mode).transpose()?,
            uid: number(&mut self.owner, owner, user::uid)?,
            gid: number(&mut self.group, group, user::gid)?,
            mtime: mtime.map(time).transpose()?,
        })
    }
}

fn number(
    last: &mut Option<(String, u32)>,
    name: Option<&str>,
    look_up: fn(&str) -> Result<u32, LookupError>,
) -> Result<Option<u32>, Error> {
    let Some(name) = name else { return Ok(None) };
    if let Some((last, number)) = last
        && last == name
    {
        return Ok(Some(*number));
    }
    let number = look_up(name).map_err(|e| {
        let code = match e {
            LookupError::Unknown(_) => ErrorCode::NotFound,
            LookupError::Io(..) => ErrorCode::Io,
        };
        Error::new(code, e.to_string())
    })?;
    *last = Some((name.to_owned(), number));
    Ok(Some(number))
}

/// Octal digits.
pub fn read_mode(text: &str) -> Result<u32, Error> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= MODE => Ok(mode),
        _ => {
            let text = format!("mode {text:?} is not octal digits up to 7777, such as 0644");
            Err(Error::new(ErrorCode::Invalid, text))
        }
    }
}

/// A Unix time.
pub fn time(seconds: f64) -> Result<SystemTime, Error> {
    let since = Duration::try_from_secs_f64(seconds).ok();
    let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    time.ok_or_else(|| Error::new(ErrorCode::Invalid, format!("mtime {seconds} is no time")))
}

/// The time of a file's content, as a Unix time.
pub fn mtime(metadata: &Metadata) -> f64 {
    metadata.mtime() as f64 + metadata.mtime_nsec() as f64 / 1e9
}

/// The mode of a file in octal digits.
pub fn mode(metadata: &Metadata) -> String {
    format!("{:04o}", metadata.mode() & MODE)
}

/// Whether a file has that time, as far as its file system keeps it: some have whole seconds only.
fn is_of(metadata: &Metadata, time: SystemTime) -> bool {
    let Ok(since) = time.duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    let fraction = metadata.mtime_nsec();
    u64::try_from(metadata.mtime()).ok() == Some(since.as_secs())
        && (fraction == 0 || fraction == i64::from(since.subsec_nanos()))
}

impl Attributes {
    /// What a file has, where nothing else is wanted.
    pub fn or_of(&self, old: &Metadata) -> Self {
        Self {
            mode: self.mode.or(Some(old.mode() & MODE)),
            uid: self.uid.or(Some(old.uid())),
            gid: self.gid.or(Some(old.gid())),
            mtime: self.mtime,
        }
    }

    /// Sets what differs; true where mode, owner or group did.
    pub fn apply(&self, file: &File) -> io::Result<bool> {
        let now = file.metadata()?;
        let uid = self.uid.filter(|&uid| uid != now.uid());
        let gid = self.gid.filter(|&gid| gid != now.gid());
        let owned = uid.is_some() || gid.is_some();
        if owned {
            fchown(file, uid, gid)?;
        }
        let mode = self.mode.unwrap_or(now.mode() & MODE);
        let other_mode = mode != now.mode() & MODE;
        // A new owner takes the bits away by which a program runs as its owner.
        if owned || other_mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        if let Some(time) = self.mtime
            && !is_of(&now, time)
        {
            file.set_times(FileTimes::new().set_modified(time))?;
        }
        Ok(owned || other_mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_times() {
        assert_eq!(read_mode("0644").unwrap(), 0o644);
        assert_eq!(read_mode("7777").unwrap(), 0o7777);
        assert_eq!(read_mode("0").unwrap(), 0);
        for wrong in [
            "",
            "8",
            "10000",
            "-1",
            "+7",
            "0x1",
            "rw",
            "00000000000000000",
        ] {
            let read = read_mode(wrong);
            assert!(read.is_err() || wrong.starts_with("000"), "{wrong:?}");
        }
        assert!(time(0.0).is_ok() && time(1.7e9).is_ok());
        for wrong in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_differs_is_set() {
        let file = tempfile::tempfile().unwrap();
        let mut wanted = Reader::default()
            .read(Some("0640"), None, None, Some(1e9))
            .unwrap();
        assert!(wanted.apply(&file).unwrap());
        assert!(!wanted.apply(&file).unwrap());
        let metadata = file.metadata().unwrap();
        assert_eq!(mode(&metadata), "0640");
        assert!((mtime(&metadata) - 1e9).abs() < 1e-6);
        wanted = wanted.or_of(&metadata);
        assert!(!wanted.apply(&file).unwrap());
        // On a file system with whole seconds it would be written each time.
        let now = file.metadata().unwrap();
        assert!(is_of(&now, time(1_000_000_000.5).unwrap()));
        assert!(!is_of(&now, time(1_000_000_001.0).unwrap()));
        wanted.mtime = Some(time(1_000_000_001.5).unwrap());
        wanted.apply(&file).unwrap();
        let now = file.metadata().unwrap();
        assert!(is_of(&now, time(1_000_000_001.5).unwrap()));
        assert!(!is_of(&now, time(1_000_000_001.25).unwrap()));
        let unknown = Reader::default().read(None, Some("no-such-user"), None, None);
        assert_eq!(unknown.unwrap_err().code, ErrorCode::NotFound);
    }
}

//! Users and groups, looked up before fork: nothing of this may run in the child.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;

/// Largest buffer for one entry of the user or group database.
const ENTRY_LIMIT: usize = 1 << 20;
/// Most supplementary groups that are taken over; Linux itself allows 65536.
const GROUP_LIMIT: usize = 65_536;

/// Who a process is to run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user, where it changes.
    pub uid: Option<libc::uid_t>,
    /// The primary group.
    pub gid: libc::gid_t,
    /// The whole list of groups.
    pub groups: Vec<libc::gid_t>,
    /// What the environment says of the user, where the user database knows it.
    pub account: Option<Account>,
}

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name to log in with.
    pub name: String,
    /// Home folder.
    pub home: String,
    /// Log-in shell.
    pub shell: String,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

/// Why there is no such identity.
#[derive(Debug)]
pub enum LookupError {
    /// Not in the database.
    Unknown(String),
    /// The database cannot be asked.
    Io(String, io::Error),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(what) => f.write_str(what),
            Self::Io(what, error) => write!(f, "{what} cannot be looked up: {error}"),
        }
    }
}

impl std::error::Error for LookupError {}

/// Looks up a user and a group, each by name or number. Without a group, the user's primary one. `None` where
/// neither is given.
pub fn lookup(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, LookupError> {
    let gid = group.map(find_group).transpose()?;
    let Some(user) = user else {
        return Ok(gid.map(|gid| Identity {
            uid: None,
            gid,
            groups: vec![gid],
            account: None,
        }));
    };
    let account = find_user(user)?;
    let identity = match (account, gid) {
        (Some(account), gid) => {
            let gid = gid.unwrap_or(account.gid);
            Identity {
                uid: Some(account.uid),
                gid,
                groups: groups_of(&account.name, gid)
                    .map_err(|e| LookupError::Io(format!("the groups of the user {user:?}"), e))?,
                account: Some(account),
            }
        }
        // A number without an entry is a user all the same, but then nobody knows the group.
        (None, Some(gid)) if user.parse::<libc::uid_t>().is_ok() => Identity {
            uid: user.parse().ok(),
            gid,
            groups: vec![gid],
            account: None,
        },
        (None, None) if user.parse::<libc::uid_t>().is_ok() => {
            return Err(LookupError::Unknown(format!(
                "no user with the number {user} on this device; name a group to use it all the same"
            )));
        }
        (None, _) => {
            return Err(LookupError::Unknown(format!(
                "no user {user:?} on this device"
            )));
        }
    };
    Ok(Some(identity))
}

/// The number of a user, by name or number.
pub fn uid(user: &str) -> Result<libc::uid_t, LookupError> {
    match find_user(user)? {
        Some(account) => Ok(account.uid),
        None => user
            .parse()
            .map_err(|_| LookupError::Unknown(format!("no user {user:?} on this device"))),
    }
}

/// The number of a group, by name or number.
pub fn gid(group: &str) -> Result<libc::gid_t, LookupError> {
    find_group(group)
}

/// What a user is called; the number where it has no name.
pub fn user_name(uid: libc::uid_t) -> String {
    let number = uid.to_string();
    match find_user(&number) {
        // Not somebody else whose name is this number.
        Ok(Some(account)) if account.uid == uid => account.name,
        _ => number,
    }
}

/// What a group is called; the number where it has no name.
pub fn group_name(gid: libc::gid_t) -> String {
    // SAFETY: `group` is plain numbers and pointers.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let found = with_buffer(|buffer, length| {
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are live for the call, and the length is the buffer's.
        let code = unsafe { libc::getgrgid_r(gid, &raw mut entry, buffer, length, &raw mut found) };
        (code, (!found.is_null()).then(|| text(entry.gr_name)))
    });
    found.ok().flatten().unwrap_or_else(|| gid.to_string())
}

/// The effective user of this process.
pub fn effective_uid() -> libc::uid_t {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

fn find_user(user: &str) -> Result<Option<Account>, LookupError> {
    let failed = |e| LookupError::Io(format!("the user {user:?}"), e);
    let Ok(name) = CString::new(user) else {
        return Ok(None);
    };
    // SAFETY: `passwd` is plain numbers and pointers, for which zero is a value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let account = |entry: &libc::passwd| Account {
        name: text(entry.pw_name),
        home: text(entry.pw_dir),
        shell: text(entry.pw_shell),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
    };
    let found = with_buffer(|buffer, length| {
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are live for the call, and the length is the buffer's.
        let code = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer,
                length,
                &raw mut found,
            )
        };
        (code, (!found.is_null()).then(|| account(&entry)))
    })
    .map_err(failed)?;
    if found.is_some() {
        return Ok(found);
    }
    let Ok(uid) = user.parse() else {
        return Ok(None);
    };
    with_buffer(|buffer, length| {
        let mut found = std::ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer, length, &raw mut found) };
        (code, (!found.is_null()).then(|| account(&entry)))
    })
    .map_err(failed)
}

fn find_group(group: &str) -> Result<libc::gid_t, LookupError> {
    let unknown = || LookupError::Unknown(format!("no group {group:?} on this device"));
    let name = CString::new(group).map_err(|_| unknown())?;
    // SAFETY: `group` is plain numbers and pointers.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let found = with_buffer(|buffer, length| {
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are live for the call, and the length is the buffer's.
        let code = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer,
                length,
                &raw mut found,
            )
        };
        (code, (!found.is_null()).then_some(entry.gr_gid))
    })
    .map_err(|e| LookupError::Io(format!("the group {group:?}"), e))?;
    found.or_else(|| group.parse().ok()).ok_or_else(unknown)
}

/// Calls a lookup with ever larger buffers until it fits.
fn with_buffer<T>(
    mut lookup: impl FnMut(*mut libc::c_char, usize) -> (libc::c_int, Option<T>),
) -> io::Result<Option<T>> {
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let (code, found) = lookup(buffer.as_mut_ptr(), buffer.len());
        match code {
            0 => return Ok(found),
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < ENTRY_LIMIT => buffer.resize(buffer.len() * 4, 0),
            // What getpwnam(3) lists as ways to say "not found"; a missing /etc/passwd is one as well.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

fn groups_of(name: &str, gid: libc::gid_t) -> io::Result<Vec<libc::gid_t>> {
    let name = CString::new(name)?;
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `count` is the length of the vector, whose pointer is live for the call.
        let result =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= GROUP_LIMIT {
            return Err(io::Error::other("too many groups"));
        }
        // musl and glibc both say how many there are; be ready for one that does not.
        let wanted = count.max(groups.len() * 2).min(GROUP_LIMIT);
        groups.resize(wanted, 0);
    }
}

fn text(pointer: *const libc::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the C library ends its strings with a NUL inside the caller's buffer.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_number() {
        let by_name = lookup(Some("root"), None).unwrap().unwrap();
        assert_eq!((by_name.uid, by_name.gid), (Some(0), 0));
        assert!(by_name.groups.contains(&0));
        assert_eq!(lookup(Some("0"), None).unwrap().unwrap(), by_name);
        let grouped = lookup(Some("root"), Some("4242")).unwrap().unwrap();
        assert_eq!(grouped.gid, 4242);
        assert!(grouped.groups.contains(&4242));
    }

    #[test]
    fn names_and_numbers_lead_to_one_another() {
        assert_eq!((uid("root").unwrap(), gid("root").unwrap()), (0, 0));
        assert_eq!((uid("0").unwrap(), gid("0").unwrap()), (0, 0));
        assert_eq!(
            (user_name(0), group_name(0)),
            ("root".into(), "root".into())
        );
        assert_eq!(uid("3999999999").unwrap(), 3_999_999_999);
        assert_eq!(user_name(3_999_999_999), "3999999999");
        assert_eq!(group_name(3_999_999_998), "3999999998");
        for nobody in ["no-such-user", "-1", "4294967296", "", "a\0b"] {
            assert!(uid(nobody).is_err(), "{nobody:?}");
        }
    }

    #[test]
    fn unknown_ones_are_named() {
        assert!(lookup(None, None).unwrap().is_none());
        for (user, group, said) in [
            (Some("no-such-user"), None, "no user \"no-such-user\""),
            (Some("a\0b"), None, "no user"),
            (Some("3999999999"), None, "name a group"),
            (None, Some("no-such-group"), "no group \"no-such-group\""),
        ] {
            let error = lookup(user, group).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let number = lookup(Some("3999999999"), Some("7")).unwrap().unwrap();
        assert_eq!((number.uid, number.groups), (Some(3_999_999_999), vec![7]));
    }
}

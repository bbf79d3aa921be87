//! What runs a script. Not the kernel: a file on a file system without the right to execute, or without the bit for
//! it, runs all the same.

use crate::message::payload::{Error, ErrorCode};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// So much of a `#!` line the kernel reads.
const LINE_LIMIT: u64 = 256;

/// The beginning of the command that runs the script at `path`.
pub fn of(
    path: &Path,
    name: &str,
    interpreters: &BTreeMap<String, String>,
) -> Result<Vec<String>, Error> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LINE_LIMIT).read_to_end(&mut head))
        .map_err(|e| {
            Error::new(
                ErrorCode::Io,
                format!("cannot read {}: {e}", path.display()),
            )
        })?;
    let own = path.display().to_string();
    if let Some(mut argv) = hash_bang(&head) {
        argv.push(own);
        return Ok(argv);
    }
    if head.starts_with(b"\x7FELF") {
        return Ok(vec![own]);
    }
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let Some(program) = interpreters.get(extension) else {
        return Err(Error::new(
            ErrorCode::Invalid,
            format!(
                "nothing runs the script {name}: it has no #! line, and scripts.interpreters names no program for the \
                 extension {extension:?}"
            ),
        ));
    };
    if !exists(program) {
        return Err(Error::new(
            ErrorCode::NotFound,
            format!(
                "the interpreter {program} of the script {name} is not on this device; install it, or name another one \
                 in the configuration: scripts.interpreters = {{ {extension} = \"/path\" }}"
            ),
        ));
    }
    Ok(vec![program.clone(), own])
}

/// The program of a `#!` line and its one argument, as the kernel takes them apart.
fn hash_bang(head: &[u8]) -> Option<Vec<String>> {
    let line = head.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let line = line.trim_matches([' ', '\t', '\r']);
    let (program, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = argument.trim_start();
    if program.is_empty() {
        return None;
    }
    let words = [program, argument].into_iter().filter(|w| !w.is_empty());
    Some(words.map(str::to_owned).collect())
}

fn exists(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
    let path = path.unwrap_or_else(|| crate::job::DEFAULT_PATH.into());
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_by(name: &str, content: &[u8]) -> Result<Vec<String>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let interpreters = [("sh", "/bin/sh"), ("env", "env"), ("lua", "/no/lua")];
        let interpreters = interpreters.map(|(e, p)| (e.to_owned(), p.to_owned()));
        let mut argv = of(&path, name, &interpreters.into())?;
        assert_eq!(argv.pop().unwrap(), path.to_str().unwrap());
        Ok(argv)
    }

    #[test]
    fn the_first_line_goes_before_the_extension() {
        for (name, content, argv) in [
            ("a.sh", &b"echo"[..], &["/bin/sh"][..]),
            ("a.env", b"", &["env"]),
            ("a.sh", b"#!/bin/lua\nx", &["/bin/lua"]),
            (
                "a.sh",
                b"#! /usr/bin/env  -S a b \r\nx",
                &["/usr/bin/env", "-S a b"],
            ),
            ("a", b"#!/bin/x", &["/bin/x"]),
            ("a.sh", b"#!\n", &["/bin/sh"]),
            ("a.sh", b"#!\xFF\n", &["/bin/sh"]),
            ("tool", b"\x7FELF\x02", &[]),
        ] {
            assert_eq!(run_by(name, content).unwrap(), argv, "{name} {content:?}");
        }
    }

    #[test]
    fn what_cannot_run_is_told_with_its_cure() {
        for (name, code, said) in [
            (
                "a.lua",
                ErrorCode::NotFound,
                "scripts.interpreters = { lua = \"/path\" }",
            ),
            ("a.lua", ErrorCode::NotFound, "/no/lua"),
            ("a.rb", ErrorCode::Invalid, "extension \"rb\""),
            ("a", ErrorCode::Invalid, "no #! line"),
        ] {
            let error = run_by(name, b"x").unwrap_err();
            assert_eq!(error.code, code, "{name}");
            assert!(error.message.contains(said), "{}", error.message);
        }
    }
}

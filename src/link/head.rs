//! The head of an HTTP answer: from the server at the upgrade, from a proxy at CONNECT.

use std::io::{self, Read};

/// Longest head that is read. Real ones have a few hundred bytes.
pub const HEAD_LIMIT: usize = 8 * 1024;

/// Status and headers of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The status, 100 to 999.
    pub status: u16,
    reason: String,
    headers: Vec<(String, String)>,
}

/// Why there is no head.
#[derive(Debug)]
pub enum HeadError {
    /// Reading failed.
    Io(io::Error),
    /// The peer closed the connection first; whether it had sent anything.
    Ended(bool),
    /// More than [`HEAD_LIMIT`] bytes.
    TooLong,
    /// It is no HTTP; how it begins, fit to be shown.
    NotHttp(String),
}

/// Reads a head. With `chunk` 1 not one byte behind it is taken from `stream`; else up to `chunk - 1` bytes
/// behind it are returned with it.
pub fn read(stream: &mut dyn Read, chunk: usize) -> Result<(Head, Vec<u8>), HeadError> {
    let (bytes, tail) = read_bytes(stream, chunk, b"HTTP/")?;
    match parse(&bytes) {
        Some(head) => Ok((head, tail)),
        None => Err(HeadError::NotHttp(presentable(&bytes, 40))),
    }
}

/// Reads up to the blank line and that with it, as [`read`] does; what does not begin with `start` is not read on.
pub fn read_bytes(
    stream: &mut dyn Read,
    chunk: usize,
    start: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), HeadError> {
    let mut bytes = Vec::with_capacity(512);
    let mut piece = vec![0; chunk.max(1)];
    loop {
        let n = match stream.read(&mut piece) {
            Ok(0) => return Err(HeadError::Ended(!bytes.is_empty())),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(HeadError::Io(error)),
        };
        // The blank line may have begun up to 3 bytes before this piece.
        let from = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(&piece[..n]);
        let known = bytes.len().min(start.len());
        if bytes[..known] != start[..known] {
            let seen = &bytes[..bytes.len().min(40)];
            return Err(HeadError::NotHttp(presentable(seen, 40)));
        }
        if let Some(end) = end_of_head(&bytes, from) {
            let tail = bytes.split_off(end);
            return Ok((bytes, tail));
        }
        if bytes.len() >= HEAD_LIMIT {
            return Err(HeadError::TooLong);
        }
    }
}

/// Where the blank line ends. A bare LF is accepted as the end of a line, as RFC 9112 allows.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find_map(|at| {
        let rest = &bytes[at..];
        if rest.starts_with(b"\n\r\n") {
            Some(at + 3)
        } else if rest.starts_with(b"\n\n") {
            Some(at + 2)
        } else {
            None
        }
    })
}

fn parse(bytes: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut first = lines.next()?.splitn(3, ' ');
    first.next()?.strip_prefix("HTTP/1.")?;
    let status = first.next()?;
    if status.len() != 3 {
        return None;
    }
    let status = status.parse().ok().filter(|status| *status >= 100)?;
    Some(Head {
        status,
        reason: presentable(first.next().unwrap_or_default().as_bytes(), 60),
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
    })
}

impl Head {
    /// The first header of this name, given in lower case.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Whether a header holds `token` in its comma-separated list, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Status and reason, such as `403 Forbidden`.
    pub fn status_line(&self) -> String {
        format!("{} {}", self.status, self.reason)
            .trim_end()
            .to_owned()
    }
}

/// What a peer sent, as one line of at most `limit` characters without control characters.
pub fn presentable(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut short: String = clean.trim().chars().take(limit).collect();
    if short.len() < clean.trim().len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_reads_a_head_and_leaves_or_returns_the_rest() {
        let bytes = b"HTTP/1.0 403 No\x1b way\r\nA: 1\r\na:2, B \r\nbroken\r\n\r\nrest of it";
        for (chunk, tail, left) in [(1, "", "rest of it"), (512, "rest of it", "")] {
            let mut stream = &bytes[..];
            let (head, rest) = read(&mut stream, chunk).unwrap();
            assert_eq!(head.status_line(), "403 No  way");
            assert_eq!(head.get("a"), Some("1"));
            assert!(head.has_token("a", "b"));
            assert_eq!((rest, stream), (tail.as_bytes().to_vec(), left.as_bytes()));
        }
        let (head, rest) = read(&mut &b"HTTP/1.1 101\n\n\x81"[..], 64).unwrap();
        assert_eq!((head.status, rest.as_slice()), (101, &b"\x81"[..]));
    }

    #[test]
    fn it_says_what_came_instead() {
        let endless = [
            b"HTTP/1.1 200 OK\r\nx: ".as_slice(),
            &[b'a'; 2 * HEAD_LIMIT],
        ]
        .concat();
        for chunk in [1, 512] {
            assert!(matches!(
                read(&mut &b""[..], chunk),
                Err(HeadError::Ended(false))
            ));
            assert!(matches!(
                read(&mut &b"HTTP/1.1 2"[..], chunk),
                Err(HeadError::Ended(true))
            ));
            assert!(matches!(
                read(&mut endless.as_slice(), chunk),
                Err(HeadError::TooLong)
            ));
            for bad in [
                "SSH-2.0-x\r\n",
                "HTTP/2 200\r\n\r\n",
                "HTTP/1.1 20\r\n\r\n",
                "HTTP/1.1 -10\r\n\r\n",
            ] {
                assert!(matches!(
                    read(&mut bad.as_bytes(), chunk),
                    Err(HeadError::NotHttp(_))
                ));
            }
        }
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(text in "HTTP/1\\.1 [0-9]{3} [a-z\r\n: ]{0,80}", chunk in 2_usize..40) {
            let one = read(&mut text.as_bytes(), 1).map(|(head, _)| head);
            let many = read(&mut text.as_bytes(), chunk).map(|(head, _)| head);
            prop_assert_eq!(one.ok(), many.ok());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, limit in 0_usize..50) {
            let _ = read(&mut bytes.as_slice(), 7);
            let _ = parse(&bytes);
            prop_assert!(presentable(&bytes, limit).chars().count() <= limit + 1);
        }
    }
}

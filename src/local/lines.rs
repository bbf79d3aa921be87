//! Lines out of bytes, bounded.

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Whole.
    Whole(Vec<u8>),
    /// Longer than the limit; its bytes were thrown away.
    TooLong,
}

/// Cuts a stream of bytes into lines of at most `limit` bytes.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold no line end, so that each byte is looked at once.
    searched: usize,
    skipping: bool,
}

impl Lines {
    /// No bytes yet.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            searched: 0,
            skipping: false,
        }
    }

    /// Adds bytes that came. Call [`Lines::next_line`] until it is empty before adding more: then the buffer holds
    /// one line and one piece at most.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line. Empty lines are skipped.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let found = self.buffer[self.searched..]
                .iter()
                .position(|&b| b == b'\n');
            let Some(end) = found.map(|at| at + self.searched) else {
                self.searched = self.buffer.len();
                if self.searched > self.limit && !self.skipping {
                    self.skipping = true;
                    self.clear();
                    return Some(Line::TooLong);
                }
                if self.skipping {
                    self.clear();
                }
                return None;
            };
            let rest = self.buffer.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.buffer, rest);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            line.truncate(end);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.len() > self.limit {
                return Some(Line::TooLong);
            }
            if !line.is_empty() {
                return Some(Line::Whole(line));
            }
        }
    }

    fn clear(&mut self) {
        self.buffer = Vec::new();
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next_line())
            .map(|line| match line {
                Line::Whole(bytes) => String::from_utf8(bytes).unwrap(),
                Line::TooLong => "TOO LONG".to_owned(),
            })
            .collect()
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"one\n\ntwo\r\nthree, too long\nfour\nfive";
        for size in 1..text.len() {
            let mut lines = Lines::new(8);
            let mut seen = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece);
                seen.extend(all(&mut lines));
            }
            assert_eq!(seen, ["one", "two", "TOO LONG", "four"], "pieces of {size}");
            lines.push(b"\n");
            assert_eq!(all(&mut lines), ["five"]);
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut lines = Lines::new(100);
        let mut errors = 0;
        for _ in 0..10_000 {
            lines.push(&[b'x'; 64]);
            errors += all(&mut lines).len();
            assert!(lines.buffer.capacity() <= 512);
        }
        assert_eq!(errors, 1);
        lines.push(b"x\nok\n");
        assert_eq!(all(&mut lines), ["ok"]);
    }
}

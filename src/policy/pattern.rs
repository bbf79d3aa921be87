//! Patterns of `*` and `?`, and the text that a command is compared as.

/// Longest pattern, in bytes.
pub const LENGTH: usize = 512;
/// Longest text that is compared at all, in bytes: comparing takes at most its length times the pattern's.
const TEXT_LIMIT: usize = 32 * 1024;

/// A pattern against a whole text: `*` is any number of characters, `?` is one. Nothing else is special.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// What came of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    #[allow(missing_docs)]
    Yes,
    #[allow(missing_docs)]
    No,
    /// The text is too long to say.
    TooLong,
}

impl Pattern {
    /// Checks its length.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern matches nothing".to_owned());
        }
        if text.len() > LENGTH {
            return Err(format!("a pattern has at most {LENGTH} bytes"));
        }
        if text.contains('\0') {
            return Err(
                "a pattern cannot hold a NUL, and nothing that is compared does".to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` as a whole fits.
    pub fn matches(&self, text: &str) -> Found {
        if text.len() > TEXT_LIMIT {
            return Found::TooLong;
        }
        if fits(&self.0, text) {
            Found::Yes
        } else {
            Found::No
        }
    }
}

/// Where it does not go on, only the last `*` takes one character more: what was found before it stays, since an
/// earlier place is never worse. So there is nothing exponential.
fn fits(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut star = None;
    loop {
        let mut rest = text.clone();
        match (pattern.next(), rest.next()) {
            (Some('*'), _) => star = Some((pattern.clone(), text.clone())),
            (Some('?'), Some(_)) => text = rest,
            (Some(a), Some(b)) if a == b => text = rest,
            (None, None) => return true,
            _ => {
                let Some((behind, from)) = &mut star else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                pattern = behind.clone();
                text = from.clone();
            }
        }
    }
}

/// Whether this stands in a word without quotes.
pub fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"%+,-./:=@_^".contains(&byte)
}

/// The words of a command in one text, as a POSIX shell would take them: blanks between them, and a word that is empty or
/// holds anything but letters, digits and `%+,-./:=@_^` in single quotes. So two commands never have the same text.
pub fn quoted(words: &[String]) -> String {
    let mut text = String::new();
    for word in words {
        // What is longer is not compared anyway, and a request may be a megabyte.
        if text.len() > TEXT_LIMIT {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        if !word.is_empty() && word.bytes().all(is_plain) {
            text.push_str(word);
        } else {
            text.push('\'');
            text.push_str(&word.replace('\'', "'\\''"));
            text.push('\'');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text) == Found::Yes
    }

    #[test]
    fn patterns() {
        for (pattern, text, wanted) in [
            ("uptime", "uptime", true),
            ("uptime", "uptimes", false),
            ("uptime*", "uptime", true),
            ("uptime *", "uptime -p", true),
            ("uptime *", "uptime", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "ä", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*.sh", "a/b.sh", true),
            ("a**c", "ac", true),
            ("[ab]", "a", false),
            ("\\*", "*", false),
            ("a?c*", "abcd", true),
            ("*ab", "aab", true),
            ("*aab*", "aaaab", true),
        ] {
            assert_eq!(said(pattern, text), wanted, "{pattern} {text}");
        }
        assert!(Pattern::new("").is_err());
        assert!(Pattern::new(&"x".repeat(LENGTH + 1)).is_err());
        let long = "x".repeat(TEXT_LIMIT + 1);
        assert_eq!(Pattern::new("*").unwrap().matches(&long), Found::TooLong);
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(LENGTH / 2 - 1) + "*b";
        assert!(!said(&pattern, &"a".repeat(TEXT_LIMIT)));
    }

    #[test]
    fn a_command_has_one_text() {
        let text =
            |words: &[&str]| quoted(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            text(&["opkg", "install", "a-b_1.0"]),
            "opkg install a-b_1.0"
        );
        assert_eq!(text(&["opkg install", "x"]), "'opkg install' x");
        assert_eq!(
            text(&["a", "", "it's", "*", "x\ny"]),
            "a '' 'it'\\''s' '*' 'x\ny'"
        );
        assert!(!said("opkg install *", &text(&["opkg install x"])));
    }

    /// By definition: each star in each way.
    fn slowly(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=text.len()).any(|n| slowly(rest, &text[n..])),
            (Some(('?', p)), Some((_, t))) => slowly(p, t),
            (Some((a, p)), Some((b, t))) => a == b && slowly(p, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_definition_says(pattern in "[ab*?]{1,8}", text in "[abä]{0,10}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(said(&pattern, &text), slowly(&p, &t));
        }

        #[test]
        fn no_two_commands_have_the_same_text(
            a in prop::collection::vec("[a '\\\\*]{0,3}", 1..4),
            b in prop::collection::vec("[a '\\\\*]{0,3}", 1..4),
        ) {
            prop_assert_eq!(a == b, quoted(&a) == quoted(&b));
        }
    }
}

//! Tokens that callers choose, so that a request whose answer was lost can be made again.

use super::ApiError;
use crate::blobs::sha256;

/// Digits of a token.
const DIGITS: usize = 32;

/// Whether it has the form of an `id` in `docs/protocol.md` section 1, as it is written. Any other text that agents
/// would accept is refused: output is kept in a file of this name.
pub(super) fn check(field: &str, token: &str) -> Result<(), ApiError> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if token.len() == DIGITS && token.bytes().all(is_digit) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "{field} is {DIGITS} lower-case hex digits, from a random source"
    )))
}

/// The token of the `n`th of the jobs that one request makes: the first has the caller's own.
pub(crate) fn nth(token: &str, n: usize) -> String {
    if n == 0 {
        return token.to_owned();
    }
    let mut digits = sha256(format!("{token}/{n}").as_bytes());
    digits.truncate(DIGITS);
    digits
}

/// It stands for another request. Whose is not said: that may be none of the caller's business.
pub(super) fn taken(field: &str, token: &str) -> ApiError {
    ApiError::conflict(format!(
        "the {field} {token} belongs to another request: make a new one for each request, and use it again only to \
         repeat the very same request to the same devices"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_has_a_token_that_anybody_can_tell() {
        let token = "00112233445566778899aabbccddeeff";
        assert_eq!(nth(token, 0), token);
        // printf TOKEN/1 | sha256sum | cut -c 1-32
        assert_eq!(nth(token, 1), "271afac582fbb671e4145a15ea567822");
        assert_eq!(nth(token, 12), "cf9b7374cab2b0f63f21413b59981267");
        assert!(check("token", &nth(token, 9999)).is_ok());
    }

    #[test]
    fn a_token_is_as_the_protocol_writes_it() {
        assert!(check("token", &triton::message::id::random()).is_ok());
        for wrong in [
            "",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdef0",
            "0123456789ABCDEF0123456789abcdef",
            "../../../../../../../../../../etc",
            "0123456789abcdef0123456789abcdé",
        ] {
            assert!(check("token", wrong).is_err(), "{wrong}");
        }
    }
}

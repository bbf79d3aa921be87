//! The two parts of a certificate that Triton reads itself: the public key, to compare it with a pin, and the
//! name, to show it. Nothing here decides on trust.

/// Parts of an X.509 certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// `SubjectPublicKeyInfo`, with its tag and length: what a pin is the hash of.
    pub spki: &'a [u8],
    subject: &'a [u8],
}

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, around the version.
const VERSION: u8 = 0xa0;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

impl<'a> Certificate<'a> {
    /// Finds the parts of a certificate in DER.
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        let (certificate, _) = element(der, SEQUENCE)?;
        let (mut body, _) = element(certificate.content, SEQUENCE)?;
        if body.content.first() == Some(&VERSION) {
            body.content = element(body.content, VERSION)?.1;
        }
        let (_serial, rest) = element(body.content, INTEGER)?;
        let (_algorithm, rest) = element(rest, SEQUENCE)?;
        let (_issuer, rest) = element(rest, SEQUENCE)?;
        let (_validity, rest) = element(rest, SEQUENCE)?;
        let (subject, rest) = element(rest, SEQUENCE)?;
        let (spki, _) = element(rest, SEQUENCE)?;
        Some(Self {
            spki: spki.whole,
            subject: subject.content,
        })
    }

    /// The common name of the subject, fit to be shown.
    pub fn common_name(&self) -> Option<String> {
        let mut names = self.subject;
        while !names.is_empty() {
            let (set, rest) = element(names, SET)?;
            names = rest;
            let (pair, _) = element(set.content, SEQUENCE)?;
            let (kind, value) = element(pair.content, OBJECT_ID)?;
            if kind.content == COMMON_NAME {
                let (value, _) = any_element(value)?;
                return Some(crate::link::head::presentable(value.content, 64));
            }
        }
        None
    }
}

struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
}

fn element(input: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    any_element(input).filter(|(element, _)| element.tag == tag)
}

/// The first element of `input` and what follows it.
fn any_element(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    // Tags above 30 take more bytes; none of the parts here has one.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The long form: 1 to 3 bytes of length reach 16 MB, beyond any certificate.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (
                bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = &input[..input.len() - rest.len()];
    Some((
        Element {
            tag,
            whole,
            content,
        },
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};

    fn certificate() -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.distinguished_name.push(DnType::CountryName, "NL");
        params.distinguished_name.push(DnType::CommonName, "a\x1bb");
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    #[test]
    fn it_finds_the_key_and_the_name() {
        let (der, key) = certificate();
        let found = Certificate::parse(&der).unwrap();
        assert_eq!(found.spki, key.subject_public_key_info());
        assert!(found.common_name().is_some());
    }

    #[test]
    fn a_cut_certificate_has_no_key() {
        let (der, _) = certificate();
        for end in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: proptest::sample::Index, value: u8) {
            let _ = Certificate::parse(&bytes).and_then(|found| found.common_name());
            let (mut der, _) = certificate();
            let at = at.index(der.len());
            der[at] = value;
            let _ = Certificate::parse(&der).and_then(|found| found.common_name());
        }
    }
}

//! The program over TLS: every kind of certificate, cipher and key exchange that servers of today use, and certificates
//! that must be refused. `tests/tls.rs` asks the library; this asks the binary, which may be one of another processor or
//! with a smaller OpenSSL (`cross/emulate.sh`).
#![cfg(any(feature = "tls", feature = "rustls"))]
#![allow(missing_docs)]

#[path = "support/mod.rs"]
mod program;
#[path = "support/link.rs"]
mod support;
#[path = "support/tls.rs"]
mod tls_support;

use program::agent::Agent;
use program::eventually;
use rcgen::KeyPair;
use rustls::crypto::ring::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use std::path::Path;
use support::echo;
use tls_support::{Authority, Identity, Server, Valid, rsa_key, self_signed};

const HOST: &str = "127.0.0.1";
const ALL: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

/// A running agent of this server. Back-off begins with less than a second, so failures are tried again.
fn agent(server: &Server, arguments: &[&str]) -> Agent {
    let url = format!("wss://{}/triton", server.address);
    let mut agent = Agent::new().with(&["--url", &url]).with(arguments);
    agent.start();
    agent
}

/// What the agent sends inside TLS arrives.
#[track_caller]
fn assert_gets_in(what: &str, server: &Server, arguments: &[&str]) {
    let agent = agent(server, arguments);
    eventually(&format!("{what} works; log:\n{}", agent.log()), || {
        (server.decrypted() > 0).then_some(())
    });
}

/// The agent says why it does not trust the server, which sees nothing of the request.
#[track_caller]
fn assert_refuses(text: &str, server: &Server, arguments: &[&str]) {
    let agent = agent(server, arguments);
    let log = agent.wait_for_log("tls: ");
    assert!(log.contains(text), "no {text:?} in:\n{log}");
    assert_eq!(server.decrypted(), 0);
}

fn trust(file: &Path) -> [&str; 2] {
    ["--ca-file", file.to_str().unwrap()]
}

fn server(identity: &Identity, provider: CryptoProvider) -> Server {
    Server::offering(provider, identity.chain.clone(), &identity.key, ALL, echo)
}

#[test]
fn every_kind_of_certificate() {
    let keys = [
        (
            "P-256",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        ),
        (
            "P-384",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        ),
        ("Ed25519", KeyPair::generate_for(&rcgen::PKCS_ED25519)),
        ("RSA", Ok(rsa_key())),
    ];
    for (name, key) in keys {
        // The authority's signature is of the same kind as the server's.
        let der = key.unwrap().serialize_der();
        let again = || KeyPair::try_from(&der[..]).unwrap();
        let authority = Authority::with(again());
        let file = authority.file();
        let identity = authority.sign_key(&[HOST], Valid::Now, again());
        for version in ALL {
            let server = Server::with(identity.chain.clone(), &identity.key, &[version]);
            let what = format!("a certificate with {name} in {:?}", version.version);
            assert_gets_in(&what, &server, &trust(file.path()));
        }
    }
}

#[test]
fn every_cipher_and_key_exchange() {
    let authority = Authority::new();
    let file = authority.file();
    let elliptic = authority.sign(&[HOST], Valid::Now);
    let rsa = authority.sign_key(&[HOST], Valid::Now, rsa_key());
    let only = |suites: &[SupportedCipherSuite], groups: &[&'static dyn SupportedKxGroup]| {
        let mut provider = ring::default_provider();
        provider.cipher_suites = suites.to_vec();
        provider.kx_groups = groups.to_vec();
        provider
    };
    for suite in ring::ALL_CIPHER_SUITES {
        let what = format!("{:?}", suite.suite());
        let needs_rsa = what.contains("_RSA_");
        let identity = if needs_rsa { &rsa } else { &elliptic };
        let server = server(identity, only(&[*suite], ring::ALL_KX_GROUPS));
        assert_gets_in(&what, &server, &trust(file.path()));
    }
    let suites = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    for suite in suites {
        for group in [kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1] {
            let server = server(&elliptic, only(&[suite], &[group]));
            let what = format!("{:?} with {:?}", group.name(), suite.suite());
            assert_gets_in(&what, &server, &trust(file.path()));
        }
    }
}

#[test]
fn what_must_be_refused_is() {
    let authority = Authority::new();
    let file = authority.file();
    let ours = trust(file.path());
    let server = |identity: Identity| Server::new(identity);
    let good = || server(authority.sign(&[HOST], Valid::Now));
    let bad = [
        (
            "of an unknown authority",
            server(Authority::new().sign(&[HOST], Valid::Now)),
        ),
        ("self-signed", server(self_signed(&[HOST], Valid::Now))),
        (
            "of another name",
            server(authority.sign(&["example.org"], Valid::Now)),
        ),
        ("expired", server(authority.sign(&[HOST], Valid::Over))),
        (
            "of the future",
            server(authority.sign(&[HOST], Valid::NotYet)),
        ),
    ];
    for (what, server) in bad {
        println!("a certificate {what}");
        assert_refuses("certificate", &server, &ours);
    }
    println!("an authority that this device does not have");
    assert_refuses("certificate", &good(), &[]);
    // A pin takes the place of the authority, and a wrong one shows the right one.
    let identity = self_signed(&["example.org"], Valid::Over);
    let pin = identity.pin().to_string();
    let pinned = server(identity);
    let other = self_signed(&[HOST], Valid::Now).pin().to_string();
    assert_refuses(&pin, &pinned, &["--pin", &other]);
    assert_gets_in("a pin", &pinned, &["--pin", &pin]);
    // Who shows a pinned key must hold it.
    let shown = authority.sign(&[HOST], Valid::Now);
    let held = KeyPair::generate().unwrap();
    let pin = shown.pin().to_string();
    let thief = Server::with(shown.chain, &held, ALL);
    assert_refuses("", &thief, &["--pin", &pin]);
}

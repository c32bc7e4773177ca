//! Properties of librdkafka that an operator sets: TLS with SCRAM-SHA-512, compression; and that a secret is never shown.

use std::path::Path;

use crate::client::sums;
use crate::edge::{Edge, wait_for_export};
use crate::secured::{PASSWORD, USER, edge_of};
use crate::sending::{client, said, send, set};
use crate::server::{answer, tollgate};
use crate::shared;
use crate::wait::wait_until;

/// An edge that comes in with this password.
fn secured(name: &str, password: &str) -> Edge {
    edge_of(name, USER, password)
}

#[test]
fn an_edge_exports_with_tls_and_a_password_that_nobody_is_shown() {
    let edge = secured("tls", PASSWORD);
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 20);
    wait_for_export(&server);
    let shown = ["/metrics", "/readyz", "/healthz"].map(|path| answer(server.admin, path).1);
    server.stop();
    assert!(edge.check(&sums(&clients)).clicks() > 100);
    assert!(!(shown.concat() + &said(&edge.data_dir)).contains(PASSWORD), "a password is nobody's to read");
    let words = edge.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for json in [&[][..], &["--json"]] {
        let (code, text) = tollgate(&edge.data_dir, &[&["check"], &words[..], json].concat());
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("sasl.password=(hidden)") && text.contains("sasl.mechanisms=SCRAM-SHA-512"), "{text}");
        assert!(!text.contains(PASSWORD), "{text}");
    }
    for file in std::fs::read_dir(&edge.data_dir).expect("a directory").flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).expect("readable");
        let holds = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!holds, "{} holds the password", file.path().display());
    }
}

#[test]
fn a_wrong_password_is_named_as_such_while_clicks_are_taken_and_counts_wait() {
    let mut edge = secured("wrong-password", "no such password");
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 10);
    wait_until("the reason is told", || said(&edge.data_dir).contains("counts wait in the log"));
    let text = said(&edge.data_dir);
    assert!(text.contains("uthentication") && !text.contains("no such password"), "{text}");
    send(&server, &mut clients[0], 10);
    server.kill();
    assert_eq!(edge.topics.committed().clicks(), 0);
    edge.flags = secured_flags(&edge.flags);
    let server = edge.start();
    wait_for_export(&server);
    server.stop();
    edge.check(&sums(&clients));
}

/// The same, with the password that is right.
fn secured_flags(flags: &[String]) -> Vec<String> {
    flags.iter().map(|flag| flag.replace("no such password", PASSWORD)).collect()
}

#[test]
fn a_certificate_of_somebody_else_is_named_too() {
    let mut edge = secured("wrong-ca", PASSWORD);
    // Without an authority of ours, those of the system count, and the broker's is none of them.
    edge.flags.truncate(edge.flags.len() - 2);
    let server = edge.start();
    wait_until("the reason is told", || said(&edge.data_dir).contains("counts wait in the log"));
    let text = said(&edge.data_dir);
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    drop(server);
}

#[test]
fn a_certificate_that_cannot_be_read_stops_the_start() {
    let mut edge = secured("no-ca", PASSWORD);
    set(&mut edge, &["ssl.ca.location=/no/such/ca.pem"]);
    let text = edge.halts(64, &["--kafka-set", "ssl.ca.location"]);
    assert!(!text.contains(PASSWORD) && !Path::new(&edge.data_dir).exists(), "{text}");
}

#[test]
fn counts_arrive_with_every_compression() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let broker = shared::broker();
        let mut edge = Edge::new(&format!("codec-{codec}"), &broker.direct(), &broker.direct());
        set(&mut edge, &[&format!("compression.type={codec}")]);
        let mut clients = [client(1)];
        let server = edge.start();
        send(&server, &mut clients[0], 20);
        wait_for_export(&server);
        server.stop();
        edge.check(&sums(&clients));
    }
}

//! What tests of an edge's configuration do again and again: send some clicks, and look at what it said.

use std::path::Path;

use crate::client::{Client, Connection, Shape};
use crate::edge::Edge;
use crate::server::Server;

/// What a process said since its directory was made, or since [`forget`].
pub fn said(data_dir: &Path) -> String {
    std::fs::read_to_string(data_dir.with_extension("stderr")).unwrap_or_default()
}

pub fn forget(data_dir: &Path) {
    // A new directory has none.
    let _ = std::fs::remove_file(data_dir.with_extension("stderr"));
}

/// Clients that send 20 clicks a request, each of ids of its own.
pub fn client(number: u64) -> Client {
    Client::new(number, Shape::Lines(20), number)
}

/// So many requests, all acknowledged.
#[track_caller]
pub fn send(server: &Server, client: &mut Client, requests: usize) {
    let mut connection = Connection::open(server.clicks).expect("it listens");
    (0..requests).for_each(|_| client.once(&mut connection).expect("it answers"));
    assert!(!client.has_unknown() && !client.ads.is_empty(), "something was shed");
}

/// Flags of `--kafka-set`, after those that it has.
pub fn set(edge: &mut Edge, properties: &[&str]) {
    edge.flags.extend(properties.iter().flat_map(|property| ["--kafka-set".to_owned(), (*property).to_owned()]));
}

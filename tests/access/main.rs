//! Who may ask a real edge for counts, and whose clicks are whose: tokens made and revoked beside a running process, the ad catalogue
//! changed under it. Every process is a child of the test, ports are 0, directories temporary.

mod catalogue;
// The clients and the child process of the crash tests: each test uses some of what they can.
#[allow(dead_code)]
#[path = "../crash/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../crash/server.rs"]
mod server;
mod tokens;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::client::{Connection, request};
use crate::server::{PATIENCE, now_ms, tollgate};

/// What is answered to one request.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {}\n{}", self.head, self.body))
    }
}

/// Asks with a token, if one is given.
pub fn ask(address: SocketAddr, path: &str, token: Option<&str>) -> Reply {
    let field = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    send(address, "GET", path, &field, "")
}

/// `fields`: each with its line's end.
pub fn send(address: SocketAddr, method: &str, path: &str, fields: &str, body: &str) -> Reply {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n"
    );
    stream.write_all((head + body).as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// A click, as a page of this campaign and advertiser sends it; empty: it names none.
pub fn click(number: u64, ad_id: &str, campaign_id: &str, advertiser_id: &str) -> String {
    let named = |name: &str, id: &str| if id.is_empty() { String::new() } else { format!(",\"{name}\":\"{id}\"") };
    let (campaign, advertiser) = (named("campaign_id", campaign_id), named("advertiser_id", advertiser_id));
    format!("{{\"ad_id\":\"{ad_id}\",\"timestamp\":{},\"request_id\":\"n{number}\"{campaign}{advertiser}}}", now_ms())
}

pub fn accepted(address: SocketAddr, clicks: &[String]) {
    let mut connection = Connection::open(address).expect("it listens");
    connection.send(request("application/x-ndjson", &clicks.join("\n")).as_bytes()).expect("it reads");
    let reply = connection.reply().expect("it answers").expect("it answers");
    assert_eq!(reply.status, 202, "{}: {}", reply.head, String::from_utf8_lossy(&reply.body));
}

/// The count of a path over the hour that the test runs in.
#[track_caller]
pub fn gross(address: SocketAddr, path: &str, token: Option<&str>) -> u64 {
    let now_s = now_ms() / 1000;
    let reply = ask(address, &format!("{path}?from={}&to={}", now_s - 3_000, now_s + 600), token);
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    reply.json()["gross"].as_u64().unwrap_or_else(|| panic!("gross: {}", reply.body))
}

/// Makes a token as a person does; gives it as it was printed.
pub fn token(data_dir: &Path, flags: &[&str]) -> String {
    let (code, text) = tollgate(data_dir, &[&["token", "create", "--new"], flags].concat());
    assert_eq!(code, Some(0), "{text}");
    text.lines().next().expect("the token").to_owned()
}

//! A client of its own: plain sockets, unique ids, retries with the same id until an answer comes, deliberate duplicates. It
//! checks every answer against what it knows of the clicks in it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::server::now_ms;

const ADS: u64 = 16;
/// Clicks of these ads are never sent again: each counts at most once.
const ADS_NOT_RETRIED: u64 = 2;
/// Acknowledged clicks that a client remembers, to send some of them again.
const REMEMBERED: usize = 256;
/// After a 503: one that goes on at once has soon shed more clicks than are taken.
const PAUSE_WHEN_SHED: Duration = Duration::from_millis(50);

/// xorshift64*: the same seed gives the same run.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// How a client sends.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// One click, and waits.
    Single,
    /// So many requests of one click at once.
    Pipelined(usize),
    /// So many clicks in one request.
    Lines(usize),
}

#[derive(Clone, Copy, Debug)]
struct Click {
    id: u64,
    at_ms: i64,
}

/// What is known of a click before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    New,
    Unknown,
    Acknowledged,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct PerAd {
    pub acknowledged: u64,
    /// Sent, with no answer, and never to be sent again.
    pub unknown: u64,
}

#[derive(Clone)]
pub struct Client {
    shape: Shape,
    /// Between two exchanges: what the log holds must be read back at each start.
    pub pause: Duration,
    /// Sends clicks again, those acknowledged too.
    pub repeats: bool,
    /// Goes on after `ending`, until the connection ends.
    pub to_the_end: bool,
    /// What is sent again may be refused as too old: whether it was counted the first time stays unknown.
    pub late: bool,
    random: Random,
    next_id: u64,
    unknown: Vec<Click>,
    acknowledged: Vec<Click>,
    pub ads: BTreeMap<String, PerAd>,
    pub duplicates: u64,
    pub retried: u64,
    pub shed: u64,
    /// Of `late`: so many.
    pub forgotten: u64,
}

/// Lets the clients send until `meanwhile` is done, or has panicked; they are told that it ends before `end` is called.
pub fn while_sending<T>(
    clients: &mut [Client],
    address: SocketAddr,
    meanwhile: impl FnOnce() -> T,
    end: impl FnOnce(T),
) {
    /// A load that nobody ends would hang the test that failed.
    struct Ending<'a>(&'a AtomicBool);
    impl Drop for Ending<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let told = Ending(&ending);
        for client in clients {
            let ending = &ending;
            scope.spawn(move || client.run(address, ending));
        }
        let result = meanwhile();
        drop(told);
        end(result);
    });
}

/// One answer.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// A connection that reads whole answers.
pub struct Connection {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, held: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer; `None` where the peer closed between two.
    pub fn reply(&mut self) -> io::Result<Option<Reply>> {
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(reply) = self.take() {
                return Ok(Some(reply));
            }
            match self.stream.read(&mut chunk)? {
                0 if self.held.is_empty() => return Ok(None),
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed within an answer")),
                read => self.held.extend_from_slice(&chunk[..read]),
            }
        }
    }

    fn take(&mut self) -> Option<Reply> {
        let end = self.held.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.held[..end]).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let length: usize = length.expect("every answer has a length");
        if self.held.len() < end + length {
            return None;
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let body = self.held[end..end + length].to_vec();
        self.held.drain(..end + length);
        Some(Reply { status, head, body })
    }
}

pub fn request(media: &str, body: &str) -> String {
    format!(
        "POST /v1/clicks HTTP/1.1\r\nHost: edge\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Click {
    fn ad(&self) -> String {
        format!("ad_{}", self.id % ADS)
    }

    fn retried(&self) -> bool {
        self.id % ADS >= ADS_NOT_RETRIED
    }

    /// Keys of UUIDs and of other text take different ways.
    fn json(&self) -> String {
        let id = self.id;
        let name = if id.is_multiple_of(3) {
            format!("click-{id:x}")
        } else {
            format!("{:08x}-0000-4000-8000-{:012x}", id >> 32, id)
        };
        format!(
            "{{\"ad_id\":\"{}\",\"timestamp\":{},\"request_id\":\"{name}\",\"user_id\":\"u{}\"}}",
            self.ad(),
            self.at_ms,
            id % 97
        )
    }
}

/// How many of each a 202 or 422 says.
pub fn verdicts(body: &[u8]) -> (u64, u64, u64) {
    let answer: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let of = |name: &str| answer[name].as_u64().expect("a number");
    (of("accepted"), of("duplicates"), of("rejected"))
}

impl Client {
    pub fn new(number: u64, shape: Shape, seed: u64) -> Client {
        Client {
            shape,
            pause: Duration::from_millis(2),
            repeats: true,
            to_the_end: false,
            late: false,
            random: Random::new(seed ^ (number << 20)),
            next_id: number << 32,
            unknown: Vec::new(),
            acknowledged: Vec::new(),
            ads: BTreeMap::new(),
            duplicates: 0,
            retried: 0,
            shed: 0,
            forgotten: 0,
        }
    }

    /// One that sends no id twice, batches of so many clicks.
    pub fn of_fresh_ids(number: u64, clicks: usize, pause_ms: u64) -> Client {
        let mut client = Client::new(number, Shape::Lines(clicks), 5);
        (client.repeats, client.pause) = (false, Duration::from_millis(pause_ms));
        client
    }

    pub fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Sends until the connection breaks, which must not be before `ending` is set, or until `ending` is.
    pub fn run(&mut self, address: SocketAddr, ending: &AtomicBool) {
        let broke = self.try_run(address, ending);
        if let Err(error) = broke {
            assert!(ending.load(Ordering::SeqCst), "the connection broke while the server was up: {error}");
        }
    }

    /// Sends what was acknowledged once more, as far as it is remembered: none of it may be accepted again.
    pub fn send_again(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut connection = Connection::open(address)?;
        let known: Vec<_> = self.acknowledged.iter().map(|click| (*click, Known::Acknowledged)).collect();
        // An answer lists so many errors at least.
        known.chunks(50).try_for_each(|known| self.exchange(&mut connection, vec![known.to_vec()]))
    }

    /// Sends what has no answer again, until all have one.
    pub fn settle(&mut self, address: SocketAddr) {
        let mut connection = Connection::open(address).expect("it listens");
        while self.has_unknown() {
            let count = self.unknown.len().min(50);
            let clicks = self.unknown.drain(..count).map(|click| (click, Known::Unknown)).collect();
            self.exchange(&mut connection, vec![clicks]).expect("it answers");
        }
    }

    fn try_run(&mut self, address: SocketAddr, ending: &AtomicBool) -> io::Result<()> {
        let mut connection = Connection::open(address)?;
        while self.to_the_end || !ending.load(Ordering::SeqCst) {
            self.once_and_pause(&mut connection)?;
        }
        Ok(())
    }

    /// So many exchanges, as far as the connection lasts.
    pub fn try_exchanges(&mut self, address: SocketAddr, exchanges: u32) -> io::Result<()> {
        let mut connection = Connection::open(address)?;
        (0..exchanges).try_for_each(|_| self.once_and_pause(&mut connection))
    }

    fn once_and_pause(&mut self, connection: &mut Connection) -> io::Result<()> {
        let shed = self.shed;
        self.once(connection)?;
        let least = if self.shed > shed { PAUSE_WHEN_SHED } else { Duration::ZERO };
        std::thread::park_timeout(self.pause.max(least));
        Ok(())
    }

    /// One exchange: its requests, and their answers.
    pub fn once(&mut self, connection: &mut Connection) -> io::Result<()> {
        let (requests, clicks) = match self.shape {
            Shape::Single => (1, 1),
            Shape::Pipelined(requests) => (requests, 1),
            Shape::Lines(clicks) => (1, clicks),
        };
        let batches = (0..requests).map(|_| (0..clicks).map(|_| self.choose()).collect()).collect();
        self.exchange(connection, batches)
    }

    fn choose(&mut self) -> (Click, Known) {
        match if self.repeats { self.random.below(10) } else { 9 } {
            0 if !self.acknowledged.is_empty() => {
                let at = self.random.below(self.acknowledged.len() as u64) as usize;
                (self.acknowledged[at], Known::Acknowledged)
            }
            1..6 if !self.unknown.is_empty() => {
                self.retried += 1;
                (self.unknown.swap_remove(0), Known::Unknown)
            }
            _ => {
                self.next_id += 1;
                (Click { id: self.next_id, at_ms: now_ms() }, Known::New)
            }
        }
    }

    /// Sends requests at once and reads their answers; clicks without one have an unknown outcome.
    fn exchange(&mut self, connection: &mut Connection, batches: Vec<Vec<(Click, Known)>>) -> io::Result<()> {
        let mut bytes = String::new();
        for batch in &batches {
            let lines: Vec<String> = batch.iter().map(|(click, _)| click.json()).collect();
            bytes +=
                &request(if batch.len() > 1 { "application/x-ndjson" } else { "application/json" }, &lines.join("\n"));
        }
        let mut broke = connection.send(bytes.as_bytes());
        for batch in batches {
            let reply = match &broke {
                Ok(()) => connection.reply(),
                Err(_) => Ok(None),
            };
            match reply {
                Ok(Some(reply)) => self.answered(&batch, &reply),
                Ok(None) => {
                    broke = broke.and(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
                    self.unanswered(&batch);
                }
                Err(error) => {
                    broke = Err(error);
                    self.unanswered(&batch);
                }
            }
        }
        broke
    }

    fn answered(&mut self, batch: &[(Click, Known)], reply: &Reply) {
        if reply.status == 503 {
            assert!(reply.head.to_ascii_lowercase().contains("retry-after:"), "{}", reply.head);
            self.shed += batch.len() as u64;
            return self.unanswered(batch);
        }
        let text = String::from_utf8_lossy(&reply.body);
        let (accepted, duplicates, mut rejected) = verdicts(&reply.body);
        let mut batch = batch.to_vec();
        if self.late && rejected > 0 {
            rejected -= self.forget_late(&mut batch, &reply.body);
        } else {
            assert_eq!(reply.status, 202, "{text}");
        }
        let of = |known| batch.iter().filter(|(_, is)| *is == known).count() as u64;
        let (new, unknown) = (of(Known::New), of(Known::Unknown));
        assert_eq!((accepted + duplicates, rejected), (batch.len() as u64, 0), "{text}");
        assert!(accepted >= new, "a new id is no duplicate: {text}, new {new}, unknown {unknown}");
        assert!(accepted <= new + unknown, "an acknowledged id counts once: {text}, new {new}, unknown {unknown}");
        self.duplicates += duplicates;
        for (click, known) in &batch {
            if *known == Known::Acknowledged {
                continue;
            }
            self.ads.entry(click.ad()).or_default().acknowledged += 1;
            if self.acknowledged.len() < REMEMBERED {
                self.acknowledged.push(*click);
            } else {
                let at = self.random.below(REMEMBERED as u64) as usize;
                self.acknowledged[at] = *click;
            }
        }
    }

    /// Takes those out that were refused as too old, and were sent before; returns how many.
    fn forget_late(&mut self, batch: &mut Vec<(Click, Known)>, answer: &[u8]) -> u64 {
        let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
        let errors = answer["errors"].as_array().expect("a list");
        for error in errors.iter().rev().filter(|error| error["reason"] == "too_old") {
            let (click, known) = batch.remove(error["index"].as_u64().expect("a number") as usize);
            assert!(known != Known::New, "{answer}");
            if known == Known::Unknown {
                self.ads.entry(click.ad()).or_default().unknown += 1;
                self.forgotten += 1;
            }
        }
        errors.len() as u64
    }

    fn unanswered(&mut self, batch: &[(Click, Known)]) {
        for (click, known) in batch {
            match known {
                Known::Acknowledged => {}
                Known::New | Known::Unknown if click.retried() => self.unknown.push(*click),
                Known::New | Known::Unknown => self.ads.entry(click.ad()).or_default().unknown += 1,
            }
        }
    }
}

/// What several clients know together. What has no answer and was to be sent again counts as unknown.
pub fn sums(clients: &[Client]) -> BTreeMap<String, PerAd> {
    let mut all: BTreeMap<String, PerAd> = BTreeMap::new();
    for (ad, of) in clients.iter().flat_map(|client| &client.ads) {
        let sum = all.entry(ad.clone()).or_default();
        sum.acknowledged += of.acknowledged;
        sum.unknown += of.unknown;
    }
    for click in clients.iter().flat_map(|client| &client.unknown) {
        all.entry(click.ad()).or_default().unknown += 1;
    }
    all
}

/// Sends clicks numbered `from..to` of ad "one", a request and so a frame each; all must be accepted.
pub fn send_one_by_one(address: SocketAddr, from: u64, to: u64) {
    let mut connection = Connection::open(address).expect("it listens");
    for number in from..to {
        assert_eq!(send_number(&mut connection, number), (1, 0, 0), "click {number}");
    }
}

pub fn send_number(connection: &mut Connection, number: u64) -> (u64, u64, u64) {
    send_number_of("one", connection, number)
}

pub fn send_number_of(ad: &str, connection: &mut Connection, number: u64) -> (u64, u64, u64) {
    let body = format!("{{\"ad_id\":\"{ad}\",\"timestamp\":{},\"request_id\":\"n{number}\"}}", now_ms());
    connection.send(request("application/json", &body).as_bytes()).expect("it reads");
    let reply = connection.reply().expect("it answers").expect("it answers");
    assert!(matches!(reply.status, 202 | 422), "{}: {}", reply.head, String::from_utf8_lossy(&reply.body));
    verdicts(&reply.body)
}

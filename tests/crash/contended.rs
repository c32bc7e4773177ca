//! The same ids over many connections at once, each in another shape, while the server is killed and started again: whatever
//! the race and whatever was lost on the way, exactly one of the answers to an id may say that it was accepted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, RwLock};
use std::time::Duration;

use crate::client::{Connection, Random, request, verdicts};
use crate::server::{Server, audited, now_ms};

/// Ids of a batch; each connection sends all of them.
const BATCH: u64 = 12;
const KILLS: u64 = 12;
const FLAGS: [&str; 4] = ["--export-interval", "100ms", "--cores", "1"];
const TWO_CORES: [&str; 4] = ["--export-interval", "100ms", "--cores", "2"];

/// How a connection sends a batch.
#[derive(Clone, Copy, Debug)]
enum Form {
    Lines,
    Array,
    Pipelined,
    Single,
}

const CONNECTIONS: [Form; 6] = [Form::Lines, Form::Array, Form::Pipelined, Form::Single, Form::Lines, Form::Pipelined];

/// What the answers to one batch say together.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    accepted: u64,
    duplicates: u64,
    /// Clicks of requests that were sent, or begun to be sent, and not answered.
    unanswered: u64,
}

/// Shared by the connections.
struct Crowd {
    barrier: Barrier,
    address: RwLock<SocketAddr>,
    batch: AtomicU64,
    ending: AtomicBool,
    /// What `ending` was at the last barrier: all connections see the same.
    over: AtomicBool,
    timestamp_ms: i64,
}

impl Crowd {
    fn address(&self) -> SocketAddr {
        *self.address.read().expect("nobody panics with it")
    }

    /// Waits for the others; the number of the next batch, or none where it is over.
    fn next(&self) -> Option<u64> {
        if self.barrier.wait().is_leader() {
            self.over.store(self.ending.load(Ordering::SeqCst), Ordering::SeqCst);
            self.batch.fetch_add(1, Ordering::SeqCst);
        }
        self.barrier.wait();
        (!self.over.load(Ordering::SeqCst)).then(|| self.batch.load(Ordering::SeqCst) - 1)
    }

    /// One connection: every batch until all of it is answered. A thread that panicked would leave the others waiting, so
    /// what must not be is told at the end.
    fn run(&self, form: Form) -> (Vec<Tally>, Vec<String>) {
        let (mut tallies, mut wrong, mut connection) = (Vec::new(), Vec::new(), None);
        while let Some(batch) = self.next() {
            let mut tally = Tally::default();
            for requests in self.exchanges(form, batch) {
                while !exchange(&mut connection, self.address(), &requests, &mut tally, &mut wrong) {
                    std::thread::park_timeout(Duration::from_millis(2));
                }
            }
            tallies.push(tally);
        }
        (tallies, wrong)
    }

    /// What goes out together, as bodies with their clicks.
    fn exchanges(&self, form: Form, batch: u64) -> Vec<Vec<(&'static str, String, u64)>> {
        let clicks: Vec<String> = (0..BATCH).map(|number| click(batch, number, self.timestamp_ms)).collect();
        let one = |click: &String| ("application/json", click.clone(), 1);
        match form {
            Form::Lines => vec![vec![("application/x-ndjson", clicks.join("\n"), BATCH)]],
            Form::Array => vec![vec![("application/json", format!("[{}]", clicks.join(",")), BATCH)]],
            Form::Pipelined => vec![clicks.iter().map(one).collect()],
            Form::Single => clicks.iter().map(|click| vec![one(click)]).collect(),
        }
    }
}

fn click(batch: u64, number: u64, timestamp_ms: i64) -> String {
    format!("{{\"ad_id\":\"contended\",\"timestamp\":{timestamp_ms},\"request_id\":\"{batch}/{number}\"}}")
}

/// Sends requests at once, on a new connection where there is none; whether all were answered. All are sent again if not:
/// those that were answered are duplicates by then.
fn exchange(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    requests: &[(&'static str, String, u64)],
    tally: &mut Tally,
    wrong: &mut Vec<String>,
) -> bool {
    let Some(mut open) = connection.take().or_else(|| Connection::open(address).ok()) else { return false };
    let bytes: String = requests.iter().map(|(media, body, _)| request(media, body)).collect();
    let sent = open.send(bytes.as_bytes()).is_ok();
    for (at, (_, body, clicks)) in requests.iter().enumerate() {
        let Some(reply) = sent.then(|| open.reply().ok().flatten()).flatten() else {
            tally.unanswered += requests[at..].iter().map(|(_, _, clicks)| clicks).sum::<u64>();
            return false;
        };
        let said = if reply.status == 202 { verdicts(&reply.body) } else { (0, 0, 0) };
        if said.0 + said.1 != *clicks || said.2 != 0 {
            wrong.push(format!("{}: {} to {body}", reply.status, String::from_utf8_lossy(&reply.body)));
        }
        tally.accepted += said.0;
        tally.duplicates += said.1;
    }
    *connection = Some(open);
    true
}

#[test]
fn of_many_connections_with_the_same_ids_one_is_told_accepted_through_any_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let mut server = Server::start(&data_dir, &TWO_CORES);
    let crowd = Crowd {
        barrier: Barrier::new(CONNECTIONS.len()),
        address: RwLock::new(server.clicks),
        batch: AtomicU64::new(0),
        ending: AtomicBool::new(false),
        over: AtomicBool::new(false),
        timestamp_ms: now_ms(),
    };
    let mut random = Random::new(6);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let crowd = &crowd;
        let threads = CONNECTIONS.map(|form| scope.spawn(move || crowd.run(form)));
        for _ in 0..KILLS {
            std::thread::park_timeout(Duration::from_millis(20 + random.below(150)));
            server.kill_now();
            // With two cores most connections are at another core than the id's home, which changes with each start.
            server = Server::start(&data_dir, if random.below(3) == 0 { &FLAGS } else { &TWO_CORES });
            *crowd.address.write().expect("nobody panics with it") = server.clicks;
        }
        crowd.ending.store(true, Ordering::SeqCst);
        threads.map(|thread| thread.join().expect("it does not panic")).into()
    });

    let wrong: Vec<_> = outcomes.iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(wrong.is_empty(), "answered otherwise than 202 for all of it: {wrong:#?}");
    let batches = outcomes[0].0.len();
    let (mut raced, mut lost) = (0, 0);
    for batch in 0..batches {
        let of = |what: fn(&Tally) -> u64| outcomes.iter().map(|(tallies, _)| what(&tallies[batch])).sum::<u64>();
        let (accepted, unanswered) = (of(|tally| tally.accepted), of(|tally| tally.unanswered));
        assert!(of(|tally| tally.duplicates) + accepted >= BATCH * CONNECTIONS.len() as u64, "batch {batch}");
        assert!(accepted <= BATCH, "batch {batch}: {BATCH} ids, and {accepted} times accepted");
        assert!(accepted + unanswered >= BATCH, "batch {batch}: {accepted} accepted, {unanswered} unanswered");
        let winners = outcomes.iter().filter(|(tallies, _)| tallies[batch].accepted > 0).count();
        (raced, lost) = (raced + u64::from(winners > 1), lost + unanswered);
    }
    println!("{batches} batches, {raced} of them accepted in parts by several connections, {lost} clicks unanswered");
    assert!(batches > 50 && lost > 0, "{batches} batches, {lost} clicks unanswered: too little to prove anything");

    let ids = batches as u64 * BATCH;
    let mut connection = Connection::open(server.clicks).expect("it listens");
    for batch in 0..batches as u64 {
        let lines: Vec<String> = (0..BATCH).map(|number| click(batch, number, crowd.timestamp_ms)).collect();
        connection.send(request("application/x-ndjson", &lines.join("\n")).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        assert_eq!(verdicts(&reply.body), (0, BATCH, 0), "batch {batch} is known");
    }
    server.wait_for_gross(ids);
    server.stop();
    audited(&data_dir);
}

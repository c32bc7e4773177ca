//! A directory that was not there, and `tollgate up` with no setting but its ports: what it takes of time, disk, memory and,
//! while nothing comes, of a CPU.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, Connection, Shape};
use crate::server::{PATIENCE, Server, answer, binary, status_json, wait_until};

const GIB: u64 = 1 << 30;
const READY: Duration = Duration::from_secs(2);
/// The machine may be busy with other tests: the best of so many starts, or of so many spans of idling, is what counts.
const TRIES: usize = 4;
const IDLE: Duration = Duration::from_secs(3);
const IDLE_SHARE: f64 = 0.01;

fn spawn(data_dir: &Path) -> Server {
    let mut command = Command::new(binary());
    command.arg("up");
    for flag in ["--listen", "--query-listen", "--admin-listen"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    Server::spawn_command(command, data_dir)
}

/// Bytes on disk of all that lies in a folder.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
            Ok(found) => found.blocks() * 512,
            // Deleted meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// Seconds without a word would look like a hang: how much memory is touched is said, and `/readyz` says how far that is.
#[test]
fn a_large_memory_is_announced_and_readyz_says_how_far_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = free.local_addr().expect("an address");
    drop(free);
    let flags = ["--dedup-memory-bytes", "1GiB", "--admin-listen", &admin.to_string()];
    let mut server = Server::spawn(&data_dir, &flags);
    let mut seen = None;
    wait_until("memory is taken", || {
        let Ok(connected) = TcpStream::connect(admin) else { return false };
        drop(connected);
        let body: serde_json::Value = serde_json::from_str(&answer(admin, "/readyz").1).expect("JSON");
        let taking = body["reason"] == "taking memory" && body["bytes_done"].as_u64().is_some_and(|done| done > 0);
        if taking {
            seen = Some((body, status_json(admin)));
        }
        taking
    });
    let (body, (code, status)) = seen.expect("it was seen");
    assert!(body["bytes_total"] == GIB && body["seconds_left"].as_f64().is_some(), "{body}");
    assert!(
        code == Some(0) && ["taking_memory", "recovering", "ready"].contains(&status["state"].as_str().expect("text")),
        "{status}"
    );
    assert!(server.ready_within(PATIENCE), "not ready");
    server.signal(Signal::TERM);
    let ended = server.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(
        ended.errors.contains("taking 1.0 GiB of memory for remembered ids and touching all of it: about "),
        "{}",
        ended.errors
    );
}

#[test]
fn a_fresh_directory_is_ready_in_two_seconds_takes_under_a_gib_and_idles_below_a_percent() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut took = Vec::new();
    let (server, data_dir) = loop {
        let data_dir = folder.path().join(took.len().to_string());
        let began = Instant::now();
        let mut server = spawn(&data_dir);
        assert!(server.ready_within(PATIENCE), "not ready");
        took.push(began.elapsed());
        if took.last().is_some_and(|took| *took <= READY) {
            break (server, data_dir);
        }
        assert!(took.len() < TRIES, "ready after {took:?}, and {READY:?} are promised");
        server.kill();
        std::fs::remove_dir_all(&data_dir).expect("ours");
    };

    let mut idle = vec![idle_share(&server)];
    while idle.last().is_some_and(|share| *share >= IDLE_SHARE) {
        assert!(idle.len() < TRIES, "shares of a CPU while idle: {idle:?}");
        idle.push(idle_share(&server));
    }

    let mut client = Client::new(1, Shape::Lines(1_000), 1);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    (0..20).for_each(|_| client.once(&mut connection).expect("it answers"));
    let (disk, memory) = (disk_bytes(&data_dir), server.peak_memory_bytes());
    println!("ready after {took:?}, idle {idle:?}, {} MiB of disk, {} MiB of memory", disk >> 20, memory >> 20);
    assert!((1 << 20..GIB).contains(&disk), "{disk} bytes of disk");
    assert!((1 << 20..GIB).contains(&memory), "{memory} bytes of memory at most");
    server.stop();
    assert!(disk_bytes(&data_dir) < GIB);
}

/// CPU time over wall time while nothing comes.
fn idle_share(server: &Server) -> f64 {
    let (before, began) = (server.cpu_time(), Instant::now());
    std::thread::park_timeout(IDLE);
    (server.cpu_time() - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

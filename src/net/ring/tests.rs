//! The ring against the kernel. What concerns the whole process (its limit of descriptors) runs in a process of its own.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::config::Config;
use crate::wake::Wake;

/// Set in the process that lowers its limit.
const ALONE: &str = "TOLLGATE_TEST_ALONE";

fn ring() -> (Ring, SocketAddr, Wake) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (wake, reader) = Wake::pair().unwrap();
    let config = RingConfig { entries: 64, recv_buffers: 16, ..Config::default().ring };
    (Ring::new(&config, 8, Some(listener), reader).unwrap(), address, wake)
}

/// Enters the kernel so often; how many connections were accepted.
fn accepted(ring: &mut Ring, entries: usize) -> usize {
    let mut accepted = 0;
    for _ in 0..entries {
        ring.wait(Wait::AtMost(Duration::from_millis(100))).unwrap();
        let streams: Vec<TcpStream> = ring.take_accepted().collect();
        streams.into_iter().for_each(|stream| ring.adopt(stream));
        let mut events = Vec::new();
        ring.events(&mut events);
        accepted += events.iter().filter(|event| matches!(event, Event::Accepted { .. })).count();
    }
    accepted
}

#[test]
fn without_descriptors_accepting_is_tried_again_though_no_connection_of_ours_closes() {
    if std::env::var_os(ALONE).is_none() {
        let test = "net::ring::tests::without_descriptors_accepting_is_tried_again_though_no_connection_of_ours_closes";
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", test, "--test-threads=1"]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let (mut ring, address, _wake) = ring();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The next descriptor would be this one's.
    let next = std::fs::File::open("/proc/self/stat").unwrap();
    let limits = getrlimit(Resource::Nofile);
    let lowered = Rlimit { current: Some(next.as_raw_fd() as u64), ..limits };
    drop(next);
    setrlimit(Resource::Nofile, lowered).unwrap();
    client.connect(&address.into()).unwrap();
    assert_eq!((accepted(&mut ring, 5), ring.counters().refused), (0, 1), "nothing to accept it with, said once");
    setrlimit(Resource::Nofile, limits).unwrap();
    assert_eq!(accepted(&mut ring, 20), 1, "others gave descriptors back");
}

#[test]
fn a_ring_that_stops_accepting_refuses_what_comes() {
    let (mut ring, address, _wake) = ring();
    let _first = TcpStream::connect(address).unwrap();
    assert_eq!(accepted(&mut ring, 3), 1);
    ring.stop_accepting();
    let mut late = TcpStream::connect(address).expect("the listener is the accept's until that has ended");
    assert_eq!(accepted(&mut ring, 3), 0);
    late.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match late.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0, "nobody serves it"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_sleeping_ring_is_woken_by_a_message_from_another() {
    let (mut sleeper, _, _wake) = ring();
    let door = sleeper.descriptor();
    let ringing = std::thread::spawn(move || {
        let (mut other, _, _wake) = ring();
        other.ring_other(7, door);
        other.ring_other(8, std::io::stderr().as_raw_fd());
        other.wait(Wait::AtMost(Duration::from_millis(50))).unwrap();
        other.take_unrung().collect::<Vec<_>>()
    });
    let before = std::time::Instant::now();
    while !std::mem::take(&mut sleeper.rung) {
        assert!(before.elapsed() < Duration::from_secs(10), "nothing came");
        sleeper.wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
    }
    assert!(before.elapsed() < Duration::from_secs(5), "it slept to its end");
    assert_eq!(ringing.join().unwrap(), [8], "what is no ring is told of, for another way to wake it");
}

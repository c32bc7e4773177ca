//! What a connection promises beside framing: replies in order and only when durable, limits, deadlines, and how it ends.

use crate::harness::{Driver, End, Reply, WALL_MS, accepted, limits, replies};
use tollgate::click::{Reason, Refusal};
use tollgate::config::{HELD_BYTES_MAX, HttpConfig};
use tollgate::metrics::Shed;
use tollgate::net::assembly::AssemblyPool;
use tollgate::net::connection::{Connection, Expired, Step};
use tollgate::net::fault::Fault;
use tollgate::net::reply::{Letterhead, ListedError, Outcome};

const MS: u64 = 1_000_000;
const NOTHING: [u16; 0] = [];

fn request(fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /v1/clicks HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn click() -> Vec<u8> {
    request("", r#"{"ad_id":"ad_1"}"#)
}

/// A driver that has received these bytes and settled nothing.
fn received(limits: HttpConfig, bytes: &[u8]) -> Driver {
    let mut driver = Driver::new(limits);
    driver.by_hand = true;
    driver.receive(bytes);
    driver
}

/// What a release with this much durable writes.
fn release(driver: &mut Driver, durable_lsn: u64) -> Vec<Reply> {
    let mut out = Vec::new();
    let letterhead = Letterhead::new(WALL_MS);
    driver.transcript.shut_down |=
        driver.connection.release(durable_lsn, driver.now_ns, &driver.limits, &letterhead, &mut out);
    driver.connection.sent(out.len(), driver.now_ns, &driver.limits);
    replies(&out)
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.status).collect()
}

fn settle(driver: &mut Driver, index: usize, outcome: Outcome, release_lsn: u64) {
    let limits = driver.limits.clone();
    driver.connection.settle(driver.tickets[index], outcome, release_lsn, &limits);
}

/// Lets time pass until just before, then until `at_ms`, and says what the deadline then asks for.
fn expire(driver: &mut Driver, at_ms: u64) -> Expired {
    assert_eq!(driver.connection.next_deadline_ns(), Some(at_ms * MS));
    let limits = driver.limits.clone();
    driver.now_ns = at_ms * MS - 1;
    assert_eq!(driver.connection.on_deadline(driver.now_ns, &limits, &mut driver.pool), Expired::Nothing);
    driver.now_ns = at_ms * MS;
    let expired = driver.connection.on_deadline(driver.now_ns, &limits, &mut driver.pool);
    if expired == Expired::TakeSteps {
        driver.receive(&[]);
    }
    expired
}

#[test]
fn the_answer_to_one_click_byte_for_byte() {
    let mut driver = Driver::new(limits());
    driver.receive(&click());
    driver.release();
    let expected = "HTTP/1.1 202 Accepted\r\nDate: Sun, 22 Nov 2026 12:51:25 GMT\r\nContent-Type: application/json\r\n\
                    Content-Length: 42\r\n\r\n{\"accepted\":1,\"duplicates\":0,\"rejected\":0}";
    assert_eq!(String::from_utf8_lossy(&driver.out), expected);
    assert!(driver.out.len() < 160);
}

#[test]
fn answers_wait_for_the_disk_and_for_those_before_them() {
    let mut driver = received(limits(), &click().repeat(3));
    settle(&mut driver, 2, accepted(1), 5);
    settle(&mut driver, 1, accepted(1), 9);
    assert_eq!(statuses(&release(&mut driver, 100)), NOTHING, "the first is not settled");
    settle(&mut driver, 0, accepted(1), 7);
    assert_eq!(statuses(&release(&mut driver, 6)), NOTHING, "the first is not durable");
    assert_eq!(statuses(&release(&mut driver, 7)), [202]);
    assert_eq!(statuses(&release(&mut driver, 8)), NOTHING, "the second is not durable, the third waits behind it");
    assert_eq!(statuses(&release(&mut driver, 9)), [202, 202]);
    settle(&mut driver, 0, accepted(1), 0);
    assert_eq!(statuses(&release(&mut driver, 100)), NOTHING, "a stale ticket answers nothing");
}

#[test]
fn counts_and_errors_as_documented() {
    let missing = Refusal { reason: Reason::MissingField, field: "ad_id" };
    let malformed = Refusal { reason: Reason::Malformed, field: "" };
    let errors = |listed: &[(u32, Refusal)]| -> Vec<ListedError> {
        listed.iter().map(|&(index, refusal)| ListedError { index, refusal }).collect()
    };
    let all: Vec<(u32, Refusal)> = (0..150).map(|index| (index, missing)).collect();
    for (accepted, duplicates, rejected, listed, status, body) in [
        (100, 0, 0, vec![], 202, r#"{"accepted":100,"duplicates":0,"rejected":0}"#),
        (0, 1, 0, vec![], 202, r#"{"accepted":0,"duplicates":1,"rejected":0}"#),
        (0, 0, 0, vec![], 202, r#"{"accepted":0,"duplicates":0,"rejected":0}"#),
        (
            1,
            0,
            2,
            vec![(0, missing), (7, malformed)],
            202,
            r#"{"accepted":1,"duplicates":0,"rejected":2,"errors":[{"index":0,"reason":"missing_field","field":"ad_id"},{"index":7,"reason":"malformed"}]}"#,
        ),
        (
            0,
            0,
            1,
            vec![(0, malformed)],
            422,
            r#"{"accepted":0,"duplicates":0,"rejected":1,"errors":[{"index":0,"reason":"malformed"}]}"#,
        ),
        (0, 1, 1, vec![], 202, r#"{"accepted":0,"duplicates":1,"rejected":1}"#),
    ] {
        let mut driver = received(limits(), &click());
        let outcome = Outcome::Clicks { accepted, duplicates, rejected, errors: errors(&listed) };
        settle(&mut driver, 0, outcome, 0);
        let [reply] = &release(&mut driver, 0)[..] else { panic!("one reply") };
        assert_eq!((reply.status, reply.body.as_str()), (status, body));
        assert_eq!(reply.field("content-type"), Some("application/json"));
    }
    let mut driver = received(limits(), &click());
    settle(&mut driver, 0, Outcome::Clicks { accepted: 0, duplicates: 0, rejected: 150, errors: errors(&all) }, 0);
    let reply: serde_json::Value = serde_json::from_str(&release(&mut driver, 0)[0].body).expect("JSON");
    assert_eq!((reply["errors"].as_array().map(Vec::len), &reply["errors"][99]["index"]), (Some(100), &99.into()));
}

#[test]
fn lists_of_errors_cannot_hold_memory_without_bound() {
    let limits = HttpConfig { reply_bytes_max: 10_000, ..limits() };
    let mut driver = received(limits, &click().repeat(50));
    let missing = Refusal { reason: Reason::MissingField, field: "ad_id" };
    for index in 0..50 {
        let errors = vec![ListedError { index: 0, refusal: missing }; 100];
        settle(&mut driver, index, Outcome::Clicks { accepted: 0, duplicates: 0, rejected: 100, errors }, 0);
    }
    let mut bytes = 0;
    let mut answered = 0;
    while answered < 50 {
        let replies = release(&mut driver, 0);
        assert!(!replies.is_empty());
        answered += replies.len();
        bytes += replies.iter().map(|reply| reply.body.len()).sum::<usize>();
        assert!(
            replies.iter().all(|reply| reply.status == 422 && reply.body.contains("\"rejected\":100,\"errors\":["))
        );
    }
    assert!(bytes < 30_000, "{bytes} bytes of replies, the limit being 10,000 and one list");
}

#[test]
fn what_is_shed_or_unreadable() {
    for (outcome, status, retry) in [
        (Outcome::Shed(Shed::LogBehind), 503, Some("1")),
        (Outcome::Shed(Shed::DiskFull), 503, Some("30")),
        (Outcome::Refused(Fault::Document { why: "it is not JSON" }), 400, None),
        (Outcome::Refused(Fault::TooManyClicks { limit: 5000 }), 413, None),
    ] {
        let mut driver = received(limits(), &click());
        settle(&mut driver, 0, outcome, 0);
        let [reply] = &release(&mut driver, 0)[..] else { panic!("one reply") };
        assert_eq!((reply.status, reply.field("retry-after")), (status, retry));
        assert_eq!(reply.field("connection"), None, "the connection lives on");
    }
}

#[test]
fn a_fault_takes_its_turn_and_nothing_is_read_after_it() {
    let mut driver = received(limits(), &[click(), b"BAD\r\n\r\n".to_vec(), click()].concat());
    assert!(driver.transcript.stopped);
    assert_eq!(driver.transcript.requests.len(), 1);
    assert_eq!(statuses(&release(&mut driver, 0)), NOTHING, "the earlier request is not settled");
    assert!(!driver.transcript.shut_down);
    settle(&mut driver, 0, accepted(1), 3);
    assert_eq!(statuses(&release(&mut driver, 3)), [202, 400]);
    assert!(driver.transcript.shut_down);
    driver.receive(&click());
    assert_eq!(driver.transcript.requests.len(), 1);
}

#[test]
fn a_chunked_request_that_breaks_is_abandoned_and_answered_once() {
    let head =
        "POST /v1/clicks HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut driver = received(limits(), (head.to_owned() + "2\r\n{}X").as_bytes());
    assert_eq!(driver.transcript.requests[0].end, End::Abandoned(Some(400)));
    assert_eq!(statuses(&release(&mut driver, 0)), [400]);
    assert!(driver.transcript.shut_down);
    assert_eq!(driver.pool.lent_bytes(), 0);
}

#[test]
fn a_body_within_the_received_bytes_is_never_copied() {
    let bytes = click();
    let limits = limits();
    let (mut connection, mut pool) = (Connection::new(), AssemblyPool::new(0));
    connection.reset(0, &limits);
    let mut input = &bytes[..];
    assert!(matches!(connection.next(&mut input, 0, &limits, &mut pool), Step::Begin { .. }));
    let Step::Body { bytes: body, last: true } = connection.next(&mut input, 0, &limits, &mut pool) else {
        panic!("the body, whole")
    };
    assert_eq!(body.as_ptr_range().end, bytes.as_ptr_range().end);
}

#[test]
fn lines_are_handed_on_as_they_come_and_only_the_torn_one_is_kept() {
    let body = "{\"a\":1}\n".repeat(5000);
    let bytes = String::from_utf8(request("", &body)).expect("text").replace("/json", "/x-ndjson").into_bytes();
    let mut driver = Driver::new(limits());
    for piece in bytes.chunks(1000) {
        driver.receive(piece);
        assert!(driver.pool.lent_bytes() <= 4096, "one smallest buffer at most");
    }
    assert_eq!(driver.transcript.requests[0].body, body.as_bytes());
    assert_eq!(driver.transcript.requests[0].end, End::Whole);
}

#[test]
fn a_full_pipeline_pauses_and_loses_nothing() {
    let mut driver = received(HttpConfig { pipeline_max: 4, ..limits() }, &click().repeat(6));
    assert!(driver.paused && driver.tickets.len() == 4);
    driver.receive(&click()[..10]);
    driver.receive(&click()[10..]);
    assert!(driver.paused && driver.tickets.len() == 4);
    assert!(!driver.connection.may_go_on(&driver.limits));
    assert_eq!(driver.connection.next_deadline_ns(), None, "it is not the peer that lets us wait");
    settle(&mut driver, 0, accepted(1), 0);
    assert_eq!(statuses(&release(&mut driver, 0)), [202]);
    assert!(driver.connection.may_go_on(&driver.limits));
    driver.receive(&[]);
    assert!(driver.paused && driver.tickets.len() == 5);
    for index in 1..5 {
        settle(&mut driver, index, accepted(1), 0);
    }
    assert_eq!(release(&mut driver, 0).len(), 4);
    driver.receive(&[]);
    assert!(!driver.paused && driver.tickets.len() == 7);
    assert_eq!(driver.pool.lent_bytes(), 0);
}

#[test]
fn what_is_held_grows_and_shrinks_and_loses_nothing() {
    let bodies: Vec<String> = (0..200).map(|index| format!("{index}:{}", "x".repeat(index * 37 % 3000))).collect();
    let stream: Vec<u8> = bodies.iter().flat_map(|body| request("", body)).collect();
    let mut driver = Driver::new(HttpConfig { pipeline_max: 3, ..limits() });
    for (index, piece) in stream.chunks(1500).enumerate() {
        driver.receive(piece);
        if index % 5 == 0 {
            driver.release();
        }
    }
    driver.release_all();
    let seen: Vec<&[u8]> = driver.transcript.requests.iter().map(|seen| &seen.body[..]).collect();
    assert_eq!(seen, bodies.iter().map(|body| body.as_bytes()).collect::<Vec<_>>());
    assert_eq!(driver.pool.lent_bytes(), 0);
}

#[test]
fn more_than_may_be_held_ends_the_connection_after_its_answers() {
    let mut driver = received(HttpConfig { pipeline_max: 1, ..limits() }, &click().repeat(2));
    driver.receive(&vec![b'x'; HELD_BYTES_MAX]);
    assert!(driver.transcript.stopped);
    assert_eq!(driver.pool.lent_bytes(), 0);
    settle(&mut driver, 0, accepted(1), 0);
    let replies = release(&mut driver, 0);
    assert_eq!(statuses(&replies), [202, 503]);
    assert_eq!((replies[1].field("retry-after"), replies[1].field("connection")), (Some("1"), Some("close")));
}

#[test]
fn a_reader_slower_than_its_requests_is_paused_then_cut_off() {
    let mut driver = received(HttpConfig { reply_bytes_max: 1000, ..limits() }, &click().repeat(10));
    assert!(driver.paused && driver.tickets.len() == 7, "7 × 160 bytes are over 1,000");
    for index in 0..7 {
        settle(&mut driver, index, accepted(1), 0);
    }
    let (limits, letterhead, mut out) = (driver.limits.clone(), Letterhead::new(WALL_MS), Vec::new());
    driver.now_ns = 5 * MS;
    assert!(!driver.connection.release(0, driver.now_ns, &limits, &letterhead, &mut out));
    assert_eq!(replies(&out).len(), 7);
    assert!(!driver.connection.may_go_on(&limits), "written is not yet taken");
    driver.connection.sent(out.len() - 1, 6 * MS, &limits);
    assert!(driver.connection.may_go_on(&limits));
    driver.receive(&[]);
    assert_eq!(driver.tickets.len(), 10);
    let deadline = 6 + limits.send_timeout_ms;
    assert_eq!(expire(&mut driver, deadline), Expired::CutOff);
}

#[test]
fn what_is_written_in_two_sends_is_owed_until_both_are_taken() {
    let mut driver = received(limits(), &click().repeat(2));
    let (limits, letterhead, mut out) = (driver.limits.clone(), Letterhead::new(WALL_MS), Vec::new());
    let mut written = Vec::new();
    for index in 0..2 {
        settle(&mut driver, index, accepted(1), 0);
        let from = out.len();
        assert!(!driver.connection.release(0, 0, &limits, &letterhead, &mut out));
        written.push(out.len() - from);
    }
    driver.connection.sent(written[0], MS, &limits);
    assert!(!driver.connection.is_idle());
    driver.connection.sent(written[1], MS, &limits);
    assert!(driver.connection.is_idle());
}

#[test]
fn a_drip_of_bytes_does_not_extend_the_head() {
    let mut driver = received(limits(), b"");
    driver.now_ns = 7 * MS;
    for byte in &click()[..60] {
        driver.receive(&[*byte]);
        driver.now_ns += 100 * MS;
    }
    assert_eq!(expire(&mut driver, 7 + 10_000), Expired::TakeSteps);
    assert_eq!(statuses(&release(&mut driver, 0)), [408]);
    assert!(driver.transcript.shut_down);
}

#[test]
fn a_drip_of_bytes_does_not_extend_the_body() {
    for media_type in ["/json", "/x-ndjson"] {
        let bytes = String::from_utf8(request("", &"{}\n".repeat(30))).expect("text").replace("/json", media_type);
        let mut driver = received(limits(), &bytes.as_bytes()[..bytes.len() - 80]);
        for byte in &bytes.as_bytes()[bytes.len() - 80..bytes.len() - 10] {
            driver.now_ns += 100 * MS;
            driver.receive(&[*byte]);
        }
        assert_eq!(expire(&mut driver, 30_000), Expired::TakeSteps);
        assert_eq!(driver.transcript.requests[0].end, End::Abandoned(Some(408)));
        assert_eq!(statuses(&release(&mut driver, 0)), [408]);
        assert!(driver.transcript.shut_down);
        assert_eq!(driver.pool.lent_bytes(), 0);
    }
}

#[test]
fn each_request_has_deadlines_of_its_own() {
    let bytes = click();
    let (head, body) = bytes.split_at(bytes.len() - 5);
    let mut driver = received(limits(), head);
    driver.now_ns = 20_000 * MS;
    driver.receive(&[body, head].concat());
    assert_eq!(driver.connection.next_deadline_ns(), Some(50_000 * MS), "from the second head's end");
    driver.now_ns = 21_000 * MS;
    driver.receive(body);
    assert_eq!(driver.connection.next_deadline_ns(), Some(96_000 * MS), "idle, from the second body's end");
}

#[test]
fn an_idle_connection_ends_without_a_word_but_not_while_an_answer_is_owed() {
    let mut driver = received(limits(), &click());
    assert_eq!(expire(&mut driver, 75_000), Expired::Nothing);
    settle(&mut driver, 0, accepted(1), 0);
    assert_eq!(statuses(&release(&mut driver, 0)), [202]);
    driver.receive(b"\r\n");
    assert_eq!(expire(&mut driver, 150_000), Expired::TakeSteps, "an empty line is no request");
    assert_eq!(statuses(&release(&mut driver, 0)), NOTHING);
    assert!(driver.transcript.shut_down);
}

#[test]
fn after_fin_the_connection_lingers_and_then_is_cut_off() {
    let mut driver = received(limits(), b"BAD\r\n");
    assert_eq!(statuses(&release(&mut driver, 0)), [400]);
    assert!(driver.transcript.shut_down && !driver.connection.is_over());
    driver.receive(b"still talking");
    assert_eq!(expire(&mut driver, 2_000), Expired::CutOff);
    driver.connection.finished();
    driver.receive(&[]);
    assert!(driver.connection.is_over());
}

#[test]
fn lingering_begins_when_the_last_answer_is_taken() {
    let mut driver = received(limits(), b"BAD\r\n");
    let (limits, mut out) = (driver.limits.clone(), Vec::new());
    assert!(driver.connection.release(0, 0, &limits, &Letterhead::new(WALL_MS), &mut out));
    driver.connection.finished();
    driver.receive(&[]);
    assert!(!driver.connection.is_over(), "the answer is not yet taken");
    assert_eq!(driver.connection.next_deadline_ns(), Some(10_000 * MS));
    driver.connection.sent(out.len(), 9_000 * MS, &limits);
    assert_eq!(driver.connection.next_deadline_ns(), Some(11_000 * MS));
    assert!(driver.connection.is_over());
}

#[test]
fn one_hundred_continue_takes_its_turn() {
    let waiting = request("Expect: 100-continue\r\n", "{}");
    let (head, body) = waiting.split_at(waiting.len() - 2);
    let mut driver = received(limits(), &[&click(), head].concat());
    assert_eq!(statuses(&release(&mut driver, 0)), NOTHING);
    assert!(driver.connection.owes_continue(), "nothing else would ask for a release while the client waits");
    settle(&mut driver, 0, accepted(1), 0);
    assert_eq!(statuses(&release(&mut driver, 0)), [202, 100]);
    assert!(!driver.connection.owes_continue());
    driver.receive(body);
    settle(&mut driver, 1, accepted(1), 0);
    assert_eq!(statuses(&release(&mut driver, 0)), [202]);

    let mut driver = received(limits(), &waiting);
    settle(&mut driver, 0, accepted(1), 0);
    assert_eq!(statuses(&release(&mut driver, 0)), [202], "the body was there already");

    let old = String::from_utf8(head.to_vec()).expect("text").replace("HTTP/1.1", "HTTP/1.0");
    let mut driver = received(limits(), old.as_bytes());
    assert_eq!(statuses(&release(&mut driver, 0)), NOTHING, "HTTP/1.0 knows no interim reply");
}

#[test]
fn a_half_closed_connection_gets_what_it_asked_for() {
    let mut driver = received(limits(), &[&click()[..], &click()[..97]].concat());
    driver.connection.finished();
    driver.receive(&[]);
    assert!(driver.transcript.stopped);
    assert!(!driver.connection.is_over());
    settle(&mut driver, 0, accepted(1), 4);
    let replies = release(&mut driver, 4);
    assert_eq!((statuses(&replies), replies[0].field("connection")), (vec![202], Some("close")));
    assert!(driver.transcript.shut_down && driver.connection.is_over());

    let bytes = click();
    let mut driver = received(limits(), &bytes[..bytes.len() - 3]);
    driver.connection.finished();
    driver.receive(&[]);
    assert_eq!(driver.transcript.requests[0].end, End::Abandoned(None));
    assert_eq!(statuses(&release(&mut driver, 0)), NOTHING);
    assert!(driver.transcript.shut_down && driver.connection.is_over());
}

#[test]
fn a_drain_answers_what_was_received_and_says_close() {
    let mut idle = received(limits(), b"");
    idle.connection.begin_drain();
    idle.receive(&[]);
    assert_eq!(statuses(&release(&mut idle, 0)), NOTHING);
    assert!(idle.transcript.shut_down);

    let bytes = click();
    let mut driver = received(HttpConfig { pipeline_max: 2, ..limits() }, &[&bytes.repeat(3), &bytes[..90]].concat());
    driver.connection.begin_drain();
    driver.receive(&[]);
    for index in 0..2 {
        settle(&mut driver, index, accepted(1), 0);
    }
    assert_eq!(statuses(&release(&mut driver, 0)), [202, 202]);
    driver.receive(&[]);
    driver.receive(&bytes[90..]);
    assert!(driver.transcript.stopped && driver.tickets.len() == 4, "what was held, and what had begun, is taken");
    for index in 2..4 {
        settle(&mut driver, index, accepted(1), 0);
    }
    let replies = release(&mut driver, 0);
    let closes: Vec<_> = replies.iter().map(|reply| reply.field("connection")).collect();
    assert_eq!((statuses(&replies), closes), (vec![202, 202], vec![None, Some("close")]));
    assert!(driver.transcript.shut_down);
}

#[test]
fn without_assembly_memory_one_request_is_shed_and_the_next_is_taken() {
    let limits = HttpConfig { assembly_bytes_max: 16 * 1024, ..limits() };
    let large = request("", &"x".repeat(40_000));
    let mut driver = received(limits, &click());
    for piece in large.chunks(9_000) {
        driver.receive(piece);
    }
    driver.receive(&click());
    assert_eq!(driver.transcript.requests[1].end, End::Abandoned(Some(503)));
    assert_eq!(driver.tickets.len(), 2);
    assert_eq!(driver.transcript.requests[2].body, driver.transcript.requests[0].body);
    assert_eq!(driver.pool.lent_bytes(), 0, "the shed request holds nothing");
    for index in 0..2 {
        settle(&mut driver, index, accepted(1), 0);
    }
    let replies = release(&mut driver, 0);
    assert_eq!(statuses(&replies), [202, 503, 202]);
    assert_eq!(replies[1].field("retry-after"), Some("1"));
}

#[test]
fn a_slot_forgets_its_last_tenant() {
    let mut driver = received(limits(), &[&click()[..], &click()[..97]].concat());
    driver.connection.clear(&mut driver.pool);
    assert_eq!((driver.pool.lent_bytes(), driver.connection.next_deadline_ns()), (0, None));
    let mut next = Driver::new(limits());
    std::mem::swap(&mut next.connection, &mut driver.connection);
    next.connection.clear(&mut driver.pool);
    next.connection.reset(0, &limits());
    next.connection.settle(driver.tickets[0], accepted(9), 0, &limits());
    next.receive(&click());
    next.release();
    assert_eq!(replies(&next.out).len(), 1);
    assert!(next.out.ends_with(b"\"accepted\":1,\"duplicates\":0,\"rejected\":0}"));
}

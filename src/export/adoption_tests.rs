//! Each contradiction that an operator can meet: which way is right, and what the others would count twice or not at all.

use crate::cut::LogId;
use crate::export::adoption::{Began, Conflict, Held, Mark, Plan, Seen, Verdict, Way};
use crate::export::{Adopted, Halt};
use tollgate_wire::{Checkpoint, FORMAT_VERSION, LogPosition};

const LOG: LogId = [1; 16];
const OURS: [u8; 16] = [0xD1; 16];
/// Of the incarnations of the log below: they begin after LSN 0, 20 and 30.
const NONCES: [[u8; 16]; 3] = [[0xA0; 16], [0xA1; 16], [0xA2; 16]];
/// Begun after the checkpoint was written by somebody else.
const LATER: [u8; 16] = [0xBB; 16];

/// A frame ends at every tenth LSN; one of ten records is no click. Its chain says whose it is.
fn mark(lsn: u64) -> Mark {
    Mark { lsn, chain: 1_000 + lsn, clicks: lsn / 10 * 9 }
}

fn began(at: usize, lsn: u64) -> Began {
    let (incarnation, started_ms) = (at as u64 + 1, 100 * lsn as i64);
    Began { before: mark(lsn), nonce: NONCES[at], incarnation, started_ms }
}

fn held() -> Held {
    Held {
        log_id: LOG,
        base: Mark::default(),
        end: mark(50),
        began: vec![Began { before: Mark::default(), ..began(0, 0) }, began(1, 20), began(2, 30)],
        nonces: NONCES.to_vec(),
        marks: (1..=5).map(|ten| mark(ten * 10)).collect(),
        repaired: false,
    }
}

fn checkpoint(txn_seq: u64, nonce: [u8; 16], mark: Mark) -> Checkpoint {
    let logs =
        vec![LogPosition { log_uuid: LOG.to_vec(), lsn: mark.lsn, chain: mark.chain, clicks_total: mark.clicks }];
    Checkpoint {
        format_version: FORMAT_VERSION,
        edge_id: "e".to_owned(),
        txn_seq,
        logs,
        nonce: nonce.to_vec(),
        data_dir_uuid: OURS.to_vec(),
        written_ms: 2_500,
    }
}

/// It remembers transaction 5, up to LSN 20, by the first incarnation.
fn seen(found: Option<Checkpoint>) -> Seen {
    Seen {
        edge_id: "e".to_owned(),
        data_dir: OURS,
        logs: vec![held()],
        remembered: Some(checkpoint(5, NONCES[0], mark(20))),
        adopted: None,
        found,
        moved: false,
    }
}

/// A position of somebody else's log, at the same LSNs as ours.
fn theirs(lsn: u64) -> Mark {
    Mark { chain: 7, ..mark(lsn) }
}

#[track_caller]
fn plan(seen: &Seen) -> Plan {
    match seen.judge() {
        Verdict::Contradicts(plan) => plan,
        Verdict::Agrees => panic!("nothing contradicts: {seen:?}"),
    }
}

/// From where, and the clicks that go out, a second time, and that are nowhere.
type Numbers = (String, u64, Option<u64>, Option<u64>);

fn numbers(way: &Way) -> Numbers {
    (way.from.join(" "), way.out, way.twice, way.missing)
}

fn known(from: &str, out: u64, twice: u64, missing: u64) -> Numbers {
    (from.to_owned(), out, Some(twice), Some(missing))
}

fn unknown(from: &str, out: u64) -> Numbers {
    (from.to_owned(), out, None, None)
}

#[track_caller]
fn check(seen: &Seen, halt: &Halt, right: Option<&str>, ways: &[Numbers]) {
    let plan = plan(seen);
    assert_eq!(plan.conflict, Conflict::Halt(halt.clone()));
    assert_eq!(plan.right.map(|right| plan.ways[right].from.join(" ")).as_deref(), right);
    assert_eq!(plan.ways.iter().map(numbers).collect::<Vec<_>>(), ways);
    let exact = plan.right.map(|right| &plan.ways[right]);
    assert!(exact.is_none_or(|way| way.twice == Some(0)), "the right way counts nothing twice");
}

fn at(lsn: u64) -> String {
    format!("{}:{lsn}", "01".repeat(16))
}

#[test]
fn what_agrees_is_left_alone() {
    for found in [checkpoint(5, NONCES[0], mark(20)), checkpoint(6, NONCES[1], mark(40))] {
        assert_eq!(seen(Some(found)).judge(), Verdict::Agrees);
    }
    let fresh = Seen { remembered: None, ..seen(None) };
    assert_eq!(fresh.judge(), Verdict::Agrees);
}

#[test]
fn a_topic_that_was_emptied_goes_on_after_what_is_remembered() {
    let ways = [known("exported", 27, 0, 0), known("start", 45, 18, 0)];
    check(&seen(None), &Halt::Vanished { ours: 5 }, Some("exported"), &ways);
}

#[test]
fn a_rewound_topic_gets_again_what_it_lost_and_the_log_still_holds() {
    let mut seen = seen(Some(checkpoint(3, NONCES[0], mark(10))));
    let halt = Halt::Rewound { found: 3, ours: 5 };
    let ways = [known("exported", 27, 0, 9), known("found", 36, 0, 0), known("start", 45, 9, 0)];
    check(&seen, &halt, Some("found"), &ways);
    seen.logs[0].base = mark(20);
    let freed = [known("exported", 27, 0, 9), known("found", 27, 0, 9), known("start", 27, 0, 9)];
    check(&seen, &halt, Some("found"), &freed);
    assert_eq!(plan(&seen).ways[1].marks, [(LOG, mark(20))], "what is freed cannot be exported");
}

#[test]
fn another_directory_loses_nothing_of_ours() {
    let mut found = checkpoint(9, LATER, theirs(70));
    (found.data_dir_uuid, found.logs[0].log_uuid) = (vec![9; 16], vec![9; 16]);
    let halt = Halt::ForeignDataDir { found: vec![9; 16], ours: OURS };
    let ways = [known("exported", 27, 0, 0), known("start", 45, 18, 0)];
    check(&seen(Some(found.clone())), &halt, Some("exported"), &ways);
    let fresh = Seen { remembered: None, ..seen(Some(found.clone())) };
    check(&fresh, &halt, Some("start"), &[known("start", 45, 0, 0)]);
    assert_eq!(fresh.word(&plan(&fresh).ways[0]).found, Some(9), "the sequence goes on");
    found.data_dir_uuid = OURS.to_vec();
    found.txn_seq = 6;
    let gone = Halt::ForeignLog { log: vec![9; 16] };
    check(&seen(Some(found)), &gone, Some("exported"), &ways);
}

/// The copy was made while the first incarnation ran, or the second, and began the others itself.
/// After a fork a log is exported under a name that only the mirror knows: without it nothing is offered that counts twice.
#[test]
fn a_log_whose_name_is_lost_is_left_to_a_person() {
    let mut found = checkpoint(7, NONCES[1], mark(40));
    found.logs[0].log_uuid = vec![9; 16];
    let seen = Seen { remembered: None, ..seen(Some(found)) };
    check(&seen, &Halt::Overtaken { found: 7, ours: 0 }, None, &[unknown("start", 45)]);
    assert!(seen.has_forked(&plan(&seen).conflict), "it needs a name again");
}

#[test]
fn a_log_has_forked_where_something_was_exported_that_it_does_not_hold() {
    for (found, forked) in [(mark(40), false), (theirs(40), true), (mark(60), true)] {
        let seen = Seen { remembered: None, ..seen(Some(checkpoint(7, NONCES[1], found))) };
        assert_eq!(seen.has_forked(&plan(&seen).conflict), forked, "{found:?}");
    }
}

#[test]
fn a_copy_goes_on_where_it_parted_from_the_one_that_exported() {
    for (nonce, lsn, out, exported_twice) in [(NONCES[0], 20, 27, 0), (NONCES[1], 30, 18, 9)] {
        let found = checkpoint(9, nonce, theirs(40));
        let ways =
            [known("exported", 27, exported_twice, 0), known(&at(lsn), out, 0, 0), known("start", 45, 45 - out, 0)];
        check(&seen(Some(found)), &Halt::Overtaken { found: 9, ours: 5 }, Some(&at(lsn)), &ways);
    }
    // As many transactions later as one: only the log tells.
    let other = Halt::OtherChain { log: LOG, lsn: 40, chain: 7 };
    let ways = [known("exported", 27, 0, 0), known(&at(20), 27, 0, 0), known("start", 45, 18, 0)];
    check(&seen(Some(checkpoint(6, NONCES[0], theirs(40)))), &other, Some(&at(20)), &ways);
    let beyond = Halt::BeyondEnd { log: LOG, lsn: 90, end: 50 };
    check(&seen(Some(checkpoint(6, NONCES[0], theirs(90)))), &beyond, Some(&at(20)), &ways);
    // Of one incarnation there is one checkpoint of a number, but where a machine was copied while it ran.
    let replaced = Halt::Replaced { seq: 5 };
    let unknown = [unknown("exported", 27), unknown("start", 45)];
    check(&seen(Some(checkpoint(5, NONCES[0], theirs(40)))), &replaced, None, &unknown);
    let mut found = checkpoint(5, LATER, theirs(40));
    found.written_ms = 1_900;
    check(&seen(Some(found)), &Halt::Replaced { seq: 5 }, Some(&at(20)), &ways);
}

#[test]
fn a_copy_that_holds_all_that_was_exported_goes_on_after_it() {
    let found = checkpoint(9, NONCES[0], mark(20));
    let ways = [known("exported", 27, 0, 0), known("found", 27, 0, 0), known("start", 45, 18, 0)];
    check(&seen(Some(found)), &Halt::Overtaken { found: 9, ours: 5 }, Some("found"), &ways);
}

/// Who wrote the checkpoint began after the copy was made. An incarnation of ours that began later than the checkpoint cannot
/// have been there before it.
#[test]
fn a_restored_snapshot_goes_on_where_its_first_own_incarnation_began() {
    let halt = Halt::UnknownNonce { nonce: LATER.to_vec() };
    let mut found = checkpoint(6, LATER, theirs(40));
    found.written_ms = 1_900;
    let ways = [known("exported", 27, 0, 0), known(&at(20), 27, 0, 0), known("start", 45, 18, 0)];
    check(&seen(Some(found.clone())), &halt, Some(&at(20)), &ways);
    // The second incarnation may be of before the copy, or of after it.
    found.written_ms = 2_000;
    let mut seen = seen(Some(found.clone()));
    check(&seen, &halt, None, &[unknown("exported", 27), unknown("start", 45)]);
    let conflict = plan(&seen).conflict;
    assert_eq!(seen.way_at(&conflict, &[(LOG, 30)]).map(|way| numbers(&way)), Ok(unknown(&at(30), 18)));
    // Clicks between what is remembered and the incarnation's end may have come after the copy was made: perhaps the other
    // one is the copy.
    found.written_ms = 1_900;
    (seen.found, seen.remembered) = (Some(found), Some(checkpoint(5, NONCES[0], mark(10))));
    check(&seen, &halt, None, &[unknown("exported", 36), unknown("start", 45)]);
}

/// The directory's own log, but an older copy of it: nobody else exported.
#[test]
fn a_log_older_than_what_is_remembered_goes_on_at_its_end() {
    let found = checkpoint(5, LATER, theirs(80));
    let mut seen = Seen { remembered: Some(found.clone()), ..seen(Some(found)) };
    let halt = Halt::BeyondEnd { log: LOG, lsn: 80, end: 50 };
    // The last incarnation was begun over the old copy.
    check(&seen, &halt, Some(&at(30)), &[known(&at(30), 18, 0, 0), known("start", 45, 27, 0)]);
    seen.logs[0].began.pop();
    check(&seen, &halt, Some(&at(50)), &[known(&at(50), 0, 0, 0), known("start", 45, 45, 0)]);
}

#[test]
fn segments_that_are_gone_are_left_to_a_person() {
    let mut seen = seen(Some(checkpoint(6, NONCES[1], mark(20))));
    seen.logs[0].base = mark(30);
    let halt = Halt::BelowStart { log: LOG, lsn: 20, base: 30 };
    check(&seen, &halt, None, &[known("exported", 18, 0, 9), known("found", 18, 0, 9), known("start", 18, 0, 9)]);
}

#[test]
fn another_cluster_goes_on_after_what_is_remembered_unless_something_of_ours_is_there() {
    let moved = |found, remembered: bool| {
        let seen = Seen { moved: true, ..seen(found) };
        let seen = if remembered { seen } else { Seen { remembered: None, ..seen } };
        let plan = plan(&seen);
        assert_eq!(plan.conflict, Conflict::Moved);
        plan.right.map(|right| numbers(&plan.ways[right]))
    };
    assert_eq!(moved(None, true), Some(known("exported", 27, 0, 0)));
    assert_eq!(moved(None, false), Some(known("start", 45, 0, 0)));
    assert_eq!(moved(Some(checkpoint(5, NONCES[0], mark(20))), true), Some(known("exported", 27, 0, 0)));
    assert_eq!(moved(Some(checkpoint(4, NONCES[0], mark(10))), true), None);
    let mut other = checkpoint(8, LATER, theirs(10));
    other.logs[0].log_uuid = vec![9; 16];
    assert_eq!(moved(Some(other), true), Some(known("exported", 27, 0, 0)));
}

#[test]
fn a_place_that_is_named_is_a_frames_end() {
    let seen = seen(None);
    let conflict = plan(&seen).conflict;
    let way = |places: &[(LogId, u64)]| seen.way_at(&conflict, places);
    assert_eq!(way(&[(LOG, 40)]).map(|way| numbers(&way)), Ok(known(&at(40), 9, 0, 18)));
    assert_eq!(way(&[(LOG, 0)]).map(|way| numbers(&way)), Ok(known(&at(0), 45, 18, 0)));
    for (places, names) in [
        (&[(LOG, 35)][..], "end at 30 and 40"),
        (&[(LOG, 51)], "from 0 to 50"),
        (&[([9; 16], 1)], "does not hold"),
        (&[], "once for this log"),
        (&[(LOG, 10), (LOG, 20)], "once for this log"),
    ] {
        let error = way(places).expect_err("refused");
        assert!(error.contains(names), "{error}");
    }
}

#[test]
fn a_word_that_was_given_is_known_again() {
    let mut seen = seen(None);
    let word = seen.word(&plan(&seen).ways[0]);
    assert_eq!(word, Adopted { found: None, logs: checkpoint(5, NONCES[0], mark(20)).logs });
    seen.adopted = Some(word);
    assert!(seen.followed());
    seen.found = Some(checkpoint(9, LATER, theirs(40)));
    assert!(!seen.followed(), "it was about another checkpoint");
}

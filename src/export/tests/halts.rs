//! What the checkpoint, the mirror and the logs contradict each other in: the exporter halts, for that reason, before anything is sent.

use super::*;

/// Runs a new incarnation until it halts, or has exported something.
fn halt_of(world: &mut World, start: Start) -> Option<Halt> {
    world.exporter = Exporter::new(start);
    let before = world.sink.transactions.len();
    while world.sink.transactions.len() == before {
        if let Some(halt) = world.step(Fate::Good) {
            return Some(halt);
        }
    }
    None
}

#[test]
fn each_contradiction_halts_with_its_reason_before_anything_is_sent() {
    let (log, other) = ([1; 16], [9; 16]);
    type Breaks = fn(&mut Checkpoint, &mut Start);
    let cases: [(Breaks, Option<Halt>); 10] = [
        (|_, _| (), None),
        (
            |checkpoint, _| checkpoint.edge_id = "other".to_owned(),
            Some(Halt::ForeignEdge { found: "other".to_owned(), ours: "edge".to_owned() }),
        ),
        (
            |checkpoint, _| checkpoint.data_dir_uuid = vec![9; 16],
            Some(Halt::ForeignDataDir { found: vec![9; 16], ours: DATA_DIR }),
        ),
        (|checkpoint, _| checkpoint.logs[0].log_uuid = vec![9; 16], Some(Halt::ForeignLog { log: other.to_vec() })),
        (|checkpoint, _| checkpoint.nonce = vec![9; 16], Some(Halt::UnknownNonce { nonce: vec![9; 16] })),
        (|checkpoint, _| checkpoint.logs[0].chain = 5, Some(Halt::OtherChain { log, lsn: 10, chain: 5 })),
        (|checkpoint, _| checkpoint.logs[0].lsn = 21, Some(Halt::BeyondEnd { log, lsn: 21, end: 20 })),
        (|_, start| start.logs[0].base_lsn = 11, Some(Halt::BelowStart { log, lsn: 10, base: 11 })),
        (|checkpoint, _| checkpoint.logs[0].clicks_total = 21, Some(Halt::Totals { log, found: 20, expected: 21 })),
        (
            |checkpoint, _| checkpoint.logs[0].clicks_total = 11,
            Some(Halt::Unbalanced { log, from: 10, to: 20, found: 10, expected: 9 }),
        ),
    ];
    for (breaks, expected) in cases {
        let mut world = exported_world();
        world.nonces.push([0xEE; 16]);
        let mut start = start(&world.logs, world.nonces.clone());
        breaks(&mut world.sink.transactions.last_mut().unwrap().checkpoint, &mut start);
        let halt = halt_of(&mut world, start);
        assert_eq!(halt, expected);
        let exit = match &halt {
            Some(Halt::Unbalanced { .. }) => Exit::Bug,
            _ => Exit::Checkpoint,
        };
        assert!(halt.is_none_or(|halt| halt.exit() == exit));
    }
}

#[test]
fn a_store_without_checkpoint_is_refused_where_segments_were_freed() {
    let mut world = exported_world();
    world.sink.transactions.clear();
    let mut start = start(&world.logs, world.nonces.clone());
    assert_eq!(halt_of(&mut world, start.clone()), None);
    world.sink.transactions.clear();
    start.logs[0].base_lsn = 1;
    assert_eq!(halt_of(&mut world, start), Some(Halt::BelowStart { log: [1; 16], lsn: 0, base: 1 }));
}

#[test]
fn a_rivals_checkpoint_found_after_a_doubt_halts() {
    let mut world = exported_world();
    world.cut(0, true, false);
    let rival = world.sink.transactions.last().unwrap().clone();
    world.sink.transactions.push(rival);
    world.sink.transactions.last_mut().unwrap().checkpoint.txn_seq += 7;
    let halt = (0..20).find_map(|_| world.step(Fate::LateLost));
    let ours = world.sink.transactions.len() as u64 - 1;
    assert_eq!(halt, Some(Halt::Rival { found: ours + 7, ours }));
}

#[test]
fn a_foreign_edge_is_seen_before_anyone_is_fenced() {
    let mut world = exported_world();
    world.exporter = Exporter::new(Start { edge_id: "other".to_owned(), ..start(&world.logs, world.nonces.clone()) });
    assert!(matches!(world.exporter.next(world.now), Step::ReadCheckpoint { look: Look::Peek }));
    world.exporter.apply(Told::Checkpoint(Ok(world.sink.checkpoint())), world.now);
    assert!(matches!(world.exporter.next(world.now), Step::Halt(Halt::ForeignEdge { .. })));
}

/// A new incarnation over the same directory, whose mirror says this.
fn halt_over(world: &mut World, checkpoint: Option<Checkpoint>, adopted: Option<Adopted>) -> Option<Halt> {
    let mirror = Mirror::Kept { checkpoint, adopted };
    let start = Start { mirror, ..start(&world.logs, world.nonces.clone()) };
    halt_of(world, start)
}

#[test]
fn a_sink_that_parted_from_the_mirror_halts() {
    let told = |change: fn(&mut Checkpoint)| {
        let mut world = exported_world();
        let mut mirror = world.sink.checkpoint().expect("exported");
        change(&mut mirror);
        halt_over(&mut world, Some(mirror), None)
    };
    let now = exported_world().sink.checkpoint().expect("exported").txn_seq;
    assert_eq!(told(|_| ()), None);
    assert_eq!(told(|mirror| mirror.txn_seq -= 1), None, "committed, and killed before it was remembered");
    assert_eq!(told(|mirror| mirror.txn_seq += 1), Some(Halt::Rewound { found: now, ours: now + 1 }));
    assert_eq!(told(|mirror| mirror.written_ms += 1), Some(Halt::Replaced { seq: now }));
    let mut world = exported_world();
    for _ in 0..2 {
        world.cut(0, true, false);
        world.append(0, vec![3]);
        let next = world.sink.transactions.len() + 1;
        while world.sink.transactions.len() < next {
            assert_eq!(world.step(Fate::Good), None);
        }
    }
    let found = world.sink.transactions.len() as u64;
    let copied = world.sink.transactions[found as usize - 3].checkpoint.clone();
    let ours = copied.txn_seq;
    assert_eq!(halt_over(&mut world, Some(copied.clone()), None), Some(Halt::Overtaken { found, ours }));
    world.sink.transactions.clear();
    assert_eq!(halt_over(&mut world, Some(copied), None), Some(Halt::Vanished { ours }));
}

#[test]
fn what_an_operator_adopted_is_followed_once_and_numbers_are_not_used_again() {
    let mut world = exported_world();
    let checkpoint = world.sink.checkpoint().expect("exported");
    world.sink.transactions.clear();
    let adopted = Adopted { found: None, logs: checkpoint.logs.clone() };
    let mirror = Mirror::Kept { checkpoint: Some(checkpoint.clone()), adopted: Some(adopted.clone()) };
    let mut exporter = Exporter::new(Start { mirror, ..start(&world.logs, world.nonces.clone()) });
    let mut reads = 0;
    let sent = loop {
        match exporter.next(world.now) {
            Step::ReadCheckpoint { .. } => {
                reads += 1;
                exporter.apply(Told::Checkpoint(Ok(None)), world.now);
            }
            Step::Rebuild { log, from_lsn, to_lsn, room, .. } => {
                assert_eq!((from_lsn, to_lsn), (10, 20), "what was exported before is not exported again");
                let rebuilt = world.rebuild(log, from_lsn, to_lsn, room);
                exporter.apply(Told::Rebuilt(Ok(rebuilt)), world.now);
            }
            Step::Commit(transaction) => break transaction,
            Step::Exported(_, exported) => assert_eq!(exported.lsn, 0, "nothing is freed on somebody's word"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((reads, sent.end.txn_seq, sent.end.ranges[0].from_lsn), (2, checkpoint.txn_seq + 1, 10));
    // The word was about another checkpoint than the one that is there now.
    let mut world = exported_world();
    let found = world.sink.checkpoint().expect("exported").txn_seq;
    let copied = Checkpoint { txn_seq: found + 5, ..checkpoint };
    let word = Adopted { found: Some(found + 1), ..adopted.clone() };
    assert_eq!(halt_over(&mut world, Some(copied), Some(word)), Some(Halt::Rewound { found, ours: found + 5 }));
    // The log does not reach as far as the word.
    let end = world.logs[0].start().end;
    let mut word = Adopted { found: None, ..adopted };
    word.logs[0].lsn = end.lsn + 1;
    world.sink.transactions.clear();
    let halt = Halt::BeyondEnd { log: end.log_id, lsn: end.lsn + 1, end: end.lsn };
    assert_eq!(halt_over(&mut world, None, Some(word)), Some(halt));
}

#[test]
fn what_an_operator_adopted_holds_over_a_kill_between_the_commit_and_its_note() {
    let mut world = exported_world();
    let remembered = world.sink.checkpoint().expect("exported");
    let logs = remembered.logs.clone();
    // Another directory exported as this edge.
    world.sink.transactions.last_mut().expect("exported").checkpoint.data_dir_uuid = vec![9; 16];
    let found = Some(remembered.txn_seq);
    let word = Adopted { found, logs };
    assert_eq!(halt_over(&mut world, Some(remembered.clone()), Some(word.clone())), None);
    let ours = world.sink.checkpoint().expect("exported");
    assert_eq!((ours.txn_seq, &*ours.data_dir_uuid), (remembered.txn_seq + 1, &DATA_DIR[..]));
    world.crash();
    assert_eq!(halt_over(&mut world, Some(remembered), Some(word)), None);
    world.finish();
}

#[test]
fn a_checkpoint_that_is_gone_is_noticed_within_the_hour() {
    let mut world = exported_world();
    let ours = |world: &World| world.sink.transactions.len() as u64;
    let looked_again = |world: &mut World, fate| {
        (world.look_fate, world.looks) = (fate, 0);
        while world.looks == 0 {
            assert_eq!(world.step(Fate::Good), None);
            assert!(world.now.mono_ns < 4_000_000_000_000, "never looked at again");
        }
        world.now.mono_ns / 1_000_000_000
    };
    let first_s = looked_again(&mut world, Fate::Lost);
    assert!((3_590..3_650).contains(&first_s), "{first_s} s");
    let second_s = looked_again(&mut world, Fate::Good);
    assert!((10..100).contains(&(second_s - first_s)), "away once: looked at again soon, not after {second_s} s");
    // Nothing is sent in between that would see it first.
    let ours = ours(&world);
    world.now.mono_ns += 3_601_000_000_000;
    world.sink.transactions.clear();
    let halt = (0..10).find_map(|_| world.step(Fate::Good));
    assert_eq!(halt, Some(Halt::Vanished { ours }));
}

//! The mesh's protocols in every order that two or three threads can take, weak memory included: loom runs each test once for each.
//! The bell is the product's own file, over loom's atomics; ring, eventfd and worker are models of what stands around it.
// What cannot be unwrapped in a test fails it.
#![allow(clippy::unwrap_used)]

#[path = "../src/mesh/bell.rs"]
mod bell;

/// What the bell takes its atomics from.
mod sync {
    pub use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

use bell::Bell;
use loom::sync::Arc;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// What lies in a ring.
const FORWARDED: usize = 1;
const JUDGED: usize = 2;
const DONE: usize = 3;

/// A ring of one producer and one consumer, as `rtrb` has it: the producer alone moves the tail, the consumer the head.
struct Ring {
    slots: Vec<AtomicUsize>,
    tail: AtomicUsize,
    head: AtomicUsize,
}

impl Ring {
    fn new(room: usize) -> Arc<Ring> {
        let slots = (0..room).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Ring { slots, tail: AtomicUsize::new(0), head: AtomicUsize::new(0) })
    }

    fn push(&self, parcel: usize) {
        let tail = self.tail.load(Ordering::Relaxed);
        let full = tail - self.head.load(Ordering::Acquire) == self.slots.len();
        assert!(!full, "a ring that credits keep from being full is full");
        self.slots[tail % self.slots.len()].store(parcel, Ordering::Relaxed);
        self.tail.store(tail + 1, Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.tail.load(Ordering::Acquire) == self.head.load(Ordering::Relaxed)
    }

    fn pop(&self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let head = self.head.load(Ordering::Relaxed);
        let parcel = self.slots[head % self.slots.len()].load(Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
        Some(parcel)
    }
}

/// A worker's io_uring, as far as it sleeps in it: a message into it wakes the worker, whether it comes before or after it sleeps. It
/// may also wake by itself, as for its disk; where nobody wakes it a second time, it sleeps for ever, which loom finds.
#[derive(Default)]
struct Sleep {
    woken: Notify,
}

impl Sleep {
    fn message(&self) {
        self.woken.notify();
    }

    fn sleep(&self) {
        self.woken.wait();
    }
}

/// What a worker shows the others.
#[derive(Default)]
struct Door {
    bell: Bell,
    sleep: Sleep,
}

impl Door {
    /// What a sender does, after its push.
    fn ring(&self) {
        if self.bell.must_ring() {
            self.sleep.message();
        }
    }

    /// As `Worker::run` and `Mesh::lie_down`: sleeps, unless something is there.
    fn wait(&self, has_mail: impl Fn() -> bool) {
        self.bell.lie_down();
        if !has_mail() {
            self.sleep.sleep();
        }
        self.bell.get_up();
    }
}

/// A receiver takes so many from all rings, and stops.
fn receive(door: &Door, rings: &[Arc<Ring>], mut expected: usize) {
    loop {
        for ring in rings {
            while ring.pop().is_some() {
                expected -= 1;
            }
        }
        if expected == 0 {
            return;
        }
        door.wait(|| rings.iter().any(|ring| !ring.is_empty()));
    }
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

#[test]
fn a_receiver_never_sleeps_beside_its_mail() {
    model(4, || {
        let (door, ring) = (Arc::new(Door::default()), Ring::new(2));
        let sender = thread::spawn({
            let (door, ring) = (Arc::clone(&door), Arc::clone(&ring));
            move || {
                for _ in 0..2 {
                    ring.push(FORWARDED);
                    door.ring();
                }
            }
        });
        receive(&door, &[ring], 2);
        sender.join().unwrap();
    });
}

/// One of them is told to ring, the other relies on it. The receiver stops when it has all, while they may still look at its bell.
#[test]
fn of_two_senders_one_rings_and_both_are_heard() {
    model(3, || {
        let (door, rings) = (Arc::new(Door::default()), [Ring::new(1), Ring::new(1)]);
        let sender = |ring: &Arc<Ring>| {
            let (door, ring) = (Arc::clone(&door), Arc::clone(ring));
            thread::spawn(move || {
                ring.push(FORWARDED);
                door.ring();
            })
        };
        let senders: Vec<_> = rings.iter().map(sender).collect();
        receive(&door, &rings, 2);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// A message that was on its way when the receiver got up by itself (its deadline, its disk) finds it lying down again: it wakes once too
/// often, and never once too rarely.
#[test]
fn a_receiver_that_gets_up_by_itself_still_hears_what_comes_later() {
    model(3, || {
        let (door, ring) = (Arc::new(Door::default()), Ring::new(2));
        let sender = thread::spawn({
            let (door, ring) = (Arc::clone(&door), Arc::clone(&ring));
            move || {
                ring.push(FORWARDED);
                door.ring();
                ring.push(FORWARDED);
                door.ring();
            }
        });
        let mut expected = 2;
        door.bell.lie_down();
        door.bell.get_up();
        while ring.pop().is_some() {
            expected -= 1;
        }
        if expected > 0 {
            receive(&door, &[ring], expected);
        }
        sender.join().unwrap();
    });
}

/// A worker, reduced to its chunks.
struct Worker {
    own: Arc<Door>,
    other: Arc<Door>,
    out: Arc<Ring>,
    back: Arc<Ring>,
    /// To be forwarded.
    chunks: usize,
    credits: usize,
}

impl Worker {
    /// Forwards its chunks as credits allow, gives back what comes, says that it is done when all of its own are back, and stops when the
    /// other is done too.
    fn run(mut self) {
        let (mut away, mut is_done, mut other_is_done) = (0, false, false);
        loop {
            let mut pushed = false;
            let mut push = |parcel| {
                self.out.push(parcel);
                pushed = true;
            };
            while let Some(parcel) = self.back.pop() {
                assert!(!other_is_done || parcel == JUDGED, "a worker that was done forwards");
                match parcel {
                    FORWARDED => push(JUDGED),
                    JUDGED => (self.credits, away) = (self.credits + 1, away - 1),
                    _ => other_is_done = true,
                }
            }
            while self.chunks > 0 && self.credits > 0 {
                push(FORWARDED);
                (self.chunks, self.credits, away) = (self.chunks - 1, self.credits - 1, away + 1);
            }
            if !is_done && self.chunks == 0 && away == 0 {
                push(DONE);
                is_done = true;
            }
            if pushed {
                self.other.ring();
            }
            if is_done && other_is_done {
                return;
            }
            self.own.wait(|| !self.back.is_empty());
        }
    }
}

/// Two workers that forward to each other with one credit each: neither waits for ever, no ring is ever full, both stop.
#[test]
fn two_workers_forward_give_back_and_stop() {
    model(2, || {
        let doors = [Arc::new(Door::default()), Arc::new(Door::default())];
        // As many as both hold credits, and the word that no more will come.
        let rings = [Ring::new(3), Ring::new(3)];
        let worker = |own: usize, chunks| Worker {
            own: Arc::clone(&doors[own]),
            other: Arc::clone(&doors[1 - own]),
            out: Arc::clone(&rings[own]),
            back: Arc::clone(&rings[1 - own]),
            chunks,
            credits: 1,
        };
        let (one, other) = (worker(0, 1), worker(1, 1));
        let other = thread::spawn(move || other.run());
        one.run();
        other.join().unwrap();
    });
}

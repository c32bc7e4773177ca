//! Pure. What a call of the sink asks of the brokers, one thing after the other. Told each answer, it says what is next; an error ends
//! the call, and the next one begins anew.
//!
//! ```text
//!  look: peek    find, waiting for nobody ─▶ found
//!        fence   fence ─▶ find, waiting for what is open ─▶ found: known; its producer is the next transaction's
//!        again   last ─▶ found
//!  commit        (fence) ─▶ last ─▶ as known? else a rival ─▶ send
//! ```
//!
//! A producer is of one transaction: what is late of that one cannot end another. Fencing could also silence a rival that took our place,
//! so behind each fence it is read who wrote last; and again before a transaction with the producer of a look, which may come long after its
//! fence: what a topic has lost by then would be written over, and nobody would know.

use tollgate_wire::Checkpoint;

use super::following::Wait;
use crate::export::Look;

/// What is asked next, or what the call came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// A new producer that fences every earlier one. `anew`: nothing of earlier connections is used for it.
    Fence { anew: bool },
    /// This edge's checkpoint, wherever it may be.
    Find(Wait),
    /// The last one in its place, behind all that is open.
    Last,
    /// The transaction, with the producer that fenced last.
    Send,
    /// A look's end.
    Found(Option<Checkpoint>),
    /// Somebody else wrote since our last one: nothing is sent.
    Rival,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Look(Look),
    Commit,
}

#[derive(Debug)]
pub struct Order {
    call: Call,
    /// The last of this edge's checkpoints, as far as this process knows.
    known: Option<Checkpoint>,
    /// The producer of the last look behind a fence is there, and was not used.
    unused: bool,
}

impl Default for Order {
    fn default() -> Order {
        Order { call: Call::Look(Look::Peek), known: None, unused: false }
    }
}

impl Order {
    pub fn look(&mut self, look: Look) -> Ask {
        self.call = Call::Look(look);
        match look {
            Look::Peek => Ask::Find(Wait::ForNobody),
            Look::Fence => {
                self.unused = false;
                Ask::Fence { anew: true }
            }
            Look::Again => Ask::Last,
        }
    }

    pub fn commit(&mut self) -> Ask {
        self.call = Call::Commit;
        if std::mem::take(&mut self.unused) { Ask::Last } else { Ask::Fence { anew: false } }
    }

    /// The producer is there, and nobody made before it can write any more.
    pub fn fenced(&mut self) -> Ask {
        match self.call {
            Call::Look(_) => Ask::Find(Wait::ForOpen),
            Call::Commit => Ask::Last,
        }
    }

    pub fn read(&mut self, found: Option<Checkpoint>) -> Ask {
        match self.call {
            Call::Look(Look::Fence) => {
                (self.known, self.unused) = (found.clone(), true);
                Ask::Found(found)
            }
            Call::Look(Look::Peek | Look::Again) => Ask::Found(found),
            Call::Commit if found != self.known => Ask::Rival,
            Call::Commit => Ask::Send,
        }
    }

    /// The transaction of this checkpoint was committed, and the brokers said so.
    pub fn committed(&mut self, checkpoint: &Checkpoint) {
        self.known = Some(checkpoint.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(txn_seq: u64) -> Option<Checkpoint> {
        Some(Checkpoint { txn_seq, ..Checkpoint::default() })
    }

    #[test]
    fn a_peek_and_the_hourly_look_fence_nobody() {
        let mut order = Order::default();
        assert_eq!(order.look(Look::Peek), Ask::Find(Wait::ForNobody));
        assert_eq!(order.read(checkpoint(3)), Ask::Found(checkpoint(3)));
        assert_eq!(order.look(Look::Again), Ask::Last);
        assert_eq!(order.read(checkpoint(3)), Ask::Found(checkpoint(3)));
    }

    #[test]
    fn each_transaction_has_a_producer_of_its_own_and_nobody_wrote_before_it() {
        let mut order = Order::default();
        assert_eq!(order.look(Look::Fence), Ask::Fence { anew: true });
        assert_eq!(order.fenced(), Ask::Find(Wait::ForOpen));
        assert_eq!(order.read(checkpoint(3)), Ask::Found(checkpoint(3)));
        assert_eq!(order.commit(), Ask::Last, "it fenced for that");
        assert_eq!(order.read(checkpoint(3)), Ask::Send);
        order.committed(&checkpoint(4).expect("one"));
        assert_eq!(order.commit(), Ask::Fence { anew: false });
        assert_eq!(order.fenced(), Ask::Last);
        assert_eq!(order.read(checkpoint(4)), Ask::Send);
        order.committed(&checkpoint(5).expect("one"));
        assert_eq!((order.commit(), order.fenced()), (Ask::Fence { anew: false }, Ask::Last));
        assert_eq!(order.read(checkpoint(6)), Ask::Rival);
        assert_eq!((order.commit(), order.fenced()), (Ask::Fence { anew: false }, Ask::Last));
        assert_eq!(order.read(None), Ask::Rival, "the topic lost it");
    }

    /// What fenced and was not read behind is not used.
    #[test]
    fn a_look_that_failed_leaves_no_producer() {
        let mut order = Order::default();
        order.look(Look::Fence);
        order.fenced();
        assert_eq!(order.commit(), Ask::Fence { anew: false });
        order.look(Look::Fence);
        order.fenced();
        order.read(None);
        order.look(Look::Fence);
        assert_eq!(order.commit(), Ask::Fence { anew: false });
    }
}

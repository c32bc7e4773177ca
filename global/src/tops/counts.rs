//! Pure. Clicks by name, two or three bytes a name, so that the panes of an hour are held apart. Names ascend; each is written as
//! the distance to the one before, then twice its clicks, odd where some of them are not valid, and how many those are; all as
//! varints (Protocol Buffers, "Base 128 Varints").

use std::sync::Arc;

use prost::encoding::{decode_varint, encode_varint};

/// What a chunk takes beside its bytes: two counts of who holds it, its address and length where it is held, and a share of that.
const CHUNK_BYTES: usize = 64;

/// Clicks of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clicks {
    pub name: u32,
    pub gross: u64,
    pub net: u64,
}

/// Never changed: shared by all who hold it.
#[derive(Clone)]
pub struct Chunk(Arc<[u8]>);

impl Chunk {
    /// `all` ascend by name; none comes twice.
    pub fn of(all: impl IntoIterator<Item = Clicks>) -> Chunk {
        let (mut bytes, mut before) = (Vec::new(), 0);
        for Clicks { name, gross, net } in all {
            let invalid = gross.saturating_sub(net);
            encode_varint(u64::from(name - before), &mut bytes);
            encode_varint(gross << 1 | u64::from(invalid > 0), &mut bytes);
            if invalid > 0 {
                encode_varint(invalid, &mut bytes);
            }
            before = name;
        }
        Chunk(bytes.into())
    }

    /// One of many.
    pub fn merged(chunks: &[Chunk]) -> Chunk {
        let mut all: Vec<Clicks> = chunks.iter().flat_map(Chunk::clicks).collect();
        all.sort_unstable_by_key(|clicks| clicks.name);
        all.dedup_by(|next, kept| {
            let same = next.name == kept.name;
            if same {
                (kept.gross, kept.net) = (kept.gross + next.gross, kept.net + next.net);
            }
            same
        });
        Chunk::of(all)
    }

    pub fn clicks(&self) -> impl Iterator<Item = Clicks> {
        let (mut rest, mut name) = (&self.0[..], 0u32);
        std::iter::from_fn(move || {
            name += decode_varint(&mut rest).ok()? as u32;
            let twice = decode_varint(&mut rest).ok()?;
            let invalid = if twice & 1 == 1 { decode_varint(&mut rest).ok()? } else { 0 };
            let gross = twice >> 1;
            Some(Clicks { name, gross, net: gross - invalid })
        })
    }

    /// Of memory, about.
    pub fn bytes(&self) -> usize {
        self.0.len() + CHUNK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn sums(chunk: &Chunk) -> BTreeMap<u32, (u64, u64)> {
        chunk.clicks().map(|clicks| (clicks.name, (clicks.gross, clicks.net))).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_what_is_merged_is_the_sum(
            parts in prop::collection::vec(
                prop::collection::btree_map(
                    prop_oneof![0u32..20, any::<u32>()],
                    (0u64..1 << 60).prop_flat_map(|gross| (Just(gross), prop_oneof![Just(gross), 0..=gross])),
                    0..20,
                ),
                0..4,
            ),
        ) {
            let (mut chunks, mut expected) = (Vec::new(), BTreeMap::<u32, (u64, u64)>::new());
            for part in parts {
                let chunk = Chunk::of(part.iter().map(|(&name, &(gross, net))| Clicks { name, gross, net }));
                prop_assert_eq!(&sums(&chunk), &part);
                for (name, (gross, net)) in part {
                    let sum = expected.entry(name).or_default();
                    *sum = (sum.0 + gross, sum.1 + net);
                }
                chunks.push(chunk);
            }
            prop_assert_eq!(sums(&Chunk::merged(&chunks)), expected);
        }
    }
}

//! Pure. Makes room in two full lines by moving keys to their other line: the shortest way to a free slot is looked for
//! first, breadth first and without changing anything, then walked from its end. So no key is ever out of the table, and a
//! search that fails leaves everything as it was.

use super::epoch::Live;
use super::line::{Line, SECOND, SLOTS};
use super::scale;
use super::simd;

/// Both lines of a key are in one block of so many, 64 KiB: where an address is translated through small pages, by the guest
/// or its host, the entries for the second and for all lines that keys could move to are beside the first one's.
pub(super) const BLOCK_LINES: u32 = 1 << 10;
pub(super) const BLOCK_BYTES: usize = BLOCK_LINES as usize * size_of::<Line>();

/// Lines looked at before giving up: 2 + 8 + 32 + 86 of the next. At a load of 0.95 one line in five or so has room.
const SEARCH_LINES_MAX: usize = 128;

/// A line that was found full, and the slot of an earlier one whose key could move here.
#[derive(Clone, Copy)]
struct Node {
    line: u32,
    parent: u8,
    slot: u8,
}

const _: () = assert!(SEARCH_LINES_MAX <= u8::MAX as usize);

/// The other line of the key with this remainder, in the same block. It is its own inverse.
#[inline]
pub(super) fn other_line(remainder_low: u64, line: u32) -> u32 {
    line ^ (1 + scale(remainder_low, BLOCK_LINES - 1))
}

/// Asks for the other lines of the four keys in a full line: nearly always one of them has room, and asked for together
/// they cost one wait.
#[inline]
pub(super) fn prefetch_others(table: &[Line], line: u32) {
    for slot in 0..SLOTS {
        simd::prefetch(table, other_line(table[line as usize].low(slot), line));
    }
}

/// Frees a slot in one of the two lines, which are full and of one block. None: no way within reach, and nothing changed.
#[inline]
pub(super) fn make_room(table: &mut [Line], live: Live, full: [u32; 2]) -> Option<(u32, usize)> {
    // Nearly always one of the eight keys has room in its other line, and nothing has to be remembered of the way there.
    for from in full {
        for slot in 0..SLOTS {
            let line = other_line(table[from as usize].low(slot), from);
            let free = table[line as usize].free(live);
            if free != 0 {
                shift(table, (from, slot), (line, free.trailing_zeros() as usize));
                return Some((from, slot));
            }
        }
    }
    make_room_afar(table, live, full)
}

/// A key goes from its slot to a free one of its other line.
#[inline]
fn shift(table: &mut [Line], from: (u32, usize), to: (u32, usize)) {
    let mut entry = table[from.0 as usize].get(from.1);
    entry.check ^= SECOND;
    table[to.0 as usize].put(to.1, &entry);
    table[from.0 as usize].set_epoch(from.1, 0);
}

#[cold]
#[inline(never)]
fn make_room_afar(table: &mut [Line], live: Live, full: [u32; 2]) -> Option<(u32, usize)> {
    let mut nodes = [Node { line: 0, parent: 0, slot: 0 }; SEARCH_LINES_MAX];
    nodes[0].line = full[0];
    nodes[1].line = full[1];
    let mut count = 2;
    for at in 0..SEARCH_LINES_MAX {
        if at == count {
            return None;
        }
        let from = nodes[at].line;
        prefetch_others(table, from);
        for slot in 0..SLOTS {
            let line = other_line(table[from as usize].low(slot), from);
            let free = table[line as usize].free(live);
            let node = Node { line, parent: at as u8, slot: slot as u8 };
            if free != 0 {
                return Some(walk(table, &nodes, node, free.trailing_zeros() as usize, live));
            }
            if count < SEARCH_LINES_MAX {
                nodes[count] = node;
                count += 1;
            }
        }
    }
    None
}

/// Moves each key on the way to its other line, the last one first, and returns the slot that is free at the beginning.
/// The way is a shortest one, so it visits no line twice.
fn walk(table: &mut [Line], nodes: &[Node], last: Node, free: usize, live: Live) -> (u32, usize) {
    let (mut node, mut slot) = (last, free);
    loop {
        let parent = nodes[node.parent as usize];
        assert!(table[node.line as usize].free(live) & 1 << slot != 0, "a key moves only to a free slot");
        shift(table, (parent.line, node.slot as usize), (node.line, slot));
        slot = node.slot as usize;
        if node.parent < 2 {
            return (parent.line, slot);
        }
        node = parent;
    }
}

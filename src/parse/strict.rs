//! Pure. The strict reading of one click, by simd-json's tape. It decides what is JSON; the fast scanner only guesses ahead of it.

use super::fields::{Field, Fields};
use crate::click::{Reason, Refusal};
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, StaticNode, Tape};

/// Levels of objects and arrays in a click, itself included.
const DEPTH_MAX: usize = 8;

/// Bytes that the scratch holds from the start: a click rarely has more.
const SCRATCH_BYTES: usize = 4096;

const MALFORMED: Refusal = Refusal { reason: Reason::Malformed, field: "" };
const TOO_DEEP: Refusal = Refusal { reason: Reason::TooDeep, field: "" };

/// What a reading needs, kept from click to click.
pub(super) struct Strict {
    /// The click being read. simd-json unescapes in place, and what was sent is still needed, so it works on this copy.
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Strict {
    pub fn new() -> Strict {
        Strict {
            scratch: Vec::with_capacity(SCRATCH_BYTES),
            buffers: Buffers::with_max_depth(SCRATCH_BYTES, DEPTH_MAX),
            tape: Tape(Vec::new()),
        }
    }

    /// The known fields of the click that `raw` is.
    pub fn read<'a>(&'a mut self, raw: &[u8], fields: &mut Fields<'a>) -> Result<(), Refusal> {
        self.scratch.clear();
        self.scratch.extend_from_slice(raw);
        self.scratch.resize(raw.len() + INPUT_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let outcome = match simd_json::fill_tape_padded(&mut self.scratch, raw.len(), &mut self.buffers, &mut tape) {
            Ok(()) => fill(fields, &tape.0),
            Err(error) if matches!(error.error(), ErrorType::DepthLimitExceeded) => Err(TOO_DEEP),
            Err(_) => Err(MALFORMED),
        };
        self.tape = tape.reset();
        outcome
    }
}

/// Walks over the keys and values of the outermost object.
fn fill<'a>(fields: &mut Fields<'a>, tape: &[Node<'a>]) -> Result<(), Refusal> {
    let Some((Node::Object { len, .. }, mut nodes)) = tape.split_first() else { return Err(MALFORMED) };
    *fields = Fields::new();
    let mut seen = 0u32;
    for _ in 0..*len {
        let [Node::String(key), value, ..] = nodes else { unreachable!("a tape's object is keys and values") };
        if let Some(field) = Field::named(key.as_bytes()) {
            if seen & 1 << field as u32 != 0 {
                return Err(field.refuse(Reason::RepeatedField));
            }
            seen |= 1 << field as u32;
            put(fields, field, value)?;
        }
        let inside = match value {
            Node::Object { count, .. } | Node::Array { count, .. } => *count,
            Node::String(_) | Node::Static(_) => 0,
        };
        nodes = &nodes[2 + inside..];
    }
    Ok(())
}

fn put<'a>(fields: &mut Fields<'a>, field: Field, value: &Node<'a>) -> Result<(), Refusal> {
    match value {
        Node::String(text) => fields.put_text(field, text.as_bytes()),
        Node::Static(StaticNode::I64(number)) => fields.put_whole(field, *number),
        Node::Static(StaticNode::U64(number)) => fields.put_whole(field, i64::try_from(*number).unwrap_or(i64::MAX)),
        Node::Static(StaticNode::F64(_)) if field.is_time() => Err(field.refuse(Reason::BadTime)),
        Node::Static(StaticNode::F64(_) | StaticNode::Bool(_) | StaticNode::Null)
        | Node::Object { .. }
        | Node::Array { .. } => Err(field.refuse(Reason::WrongType)),
    }
}

//! Pure. A partial read where its bytes lie: what consumes hundreds of thousands a second makes no text of its own for each. A test holds
//! it to [`Partial`]'s decoding, byte by byte.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{self, DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field};

use crate::messages::Partial;

/// A [`Partial`] whose texts are somebody else's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartialView<'a> {
    pub format_version: u32,
    pub edge_id: &'a str,
    pub log_uuid: &'a [u8],
    pub txn_seq: u64,
    pub index: u32,
    pub pane_start_ms: i64,
    pub ad_id: &'a str,
    pub campaign_id: &'a str,
    pub advertiser_id: &'a str,
    pub region: &'a str,
    pub device: u32,
    pub agent: u32,
    pub class: u32,
    pub rules: u32,
    pub clicks: u64,
    pub users: &'a [u8],
    pub watermark_ms: i64,
}

impl<'a> PartialView<'a> {
    pub fn of(partial: &'a Partial) -> PartialView<'a> {
        PartialView {
            format_version: partial.format_version,
            edge_id: &partial.edge_id,
            log_uuid: &partial.log_uuid,
            txn_seq: partial.txn_seq,
            index: partial.index,
            pane_start_ms: partial.pane_start_ms,
            ad_id: &partial.ad_id,
            campaign_id: &partial.campaign_id,
            advertiser_id: &partial.advertiser_id,
            region: &partial.region,
            device: partial.device,
            agent: partial.agent,
            class: partial.class,
            rules: partial.rules,
            clicks: partial.clicks,
            users: &partial.users,
            watermark_ms: partial.watermark_ms,
        }
    }

    /// Whatever its version; fields that this does not know are passed over.
    pub fn read(bytes: &'a [u8]) -> Result<PartialView<'a>, DecodeError> {
        let (mut view, mut rest) = (PartialView::default(), bytes);
        while !rest.is_empty() {
            let (tag, kind) = decode_key(&mut rest)?;
            let (rest, context) = (&mut rest, DecodeContext::default());
            match tag {
                1 => encoding::uint32::merge(kind, &mut view.format_version, rest, context)?,
                2 => view.edge_id = text(kind, rest)?,
                3 => view.log_uuid = bytes_of(kind, rest)?,
                4 => encoding::uint64::merge(kind, &mut view.txn_seq, rest, context)?,
                5 => encoding::uint32::merge(kind, &mut view.index, rest, context)?,
                6 => encoding::sint64::merge(kind, &mut view.pane_start_ms, rest, context)?,
                7 => view.ad_id = text(kind, rest)?,
                8 => view.campaign_id = text(kind, rest)?,
                9 => view.advertiser_id = text(kind, rest)?,
                10 => view.region = text(kind, rest)?,
                11 => encoding::uint32::merge(kind, &mut view.device, rest, context)?,
                12 => encoding::uint32::merge(kind, &mut view.agent, rest, context)?,
                13 => encoding::uint32::merge(kind, &mut view.class, rest, context)?,
                14 => encoding::uint32::merge(kind, &mut view.rules, rest, context)?,
                15 => encoding::uint64::merge(kind, &mut view.clicks, rest, context)?,
                16 => view.users = bytes_of(kind, rest)?,
                17 => encoding::sint64::merge(kind, &mut view.watermark_ms, rest, context)?,
                _ => skip_field(kind, tag, rest, context)?,
            }
        }
        Ok(view)
    }
}

fn bytes_of<'a>(kind: WireType, rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    check_wire_type(WireType::LengthDelimited, kind)?;
    let begin = *rest;
    let length = usize::try_from(decode_varint(rest)?).ok();
    match length.and_then(|length| rest.split_off(..length)) {
        Some(bytes) => Ok(bytes),
        // As prost says it.
        None => encoding::bytes::merge(kind, &mut Vec::new(), &mut &*begin, DecodeContext::default())
            .map(|()| unreachable!("{} bytes are not there", begin.remaining())),
    }
}

fn text<'a>(kind: WireType, rest: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let begin = *rest;
    let bytes = bytes_of(kind, rest)?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => encoding::string::merge(kind, &mut String::new(), &mut &*begin, DecodeContext::default())
            .map(|()| unreachable!("no text: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    fn partial() -> impl Strategy<Value = Partial> {
        let texts = [(); 5].map(|()| "\\PC{0,9}".prop_map(String::from));
        let numbers = (any::<[u32; 6]>(), any::<[u64; 2]>(), any::<[i64; 2]>());
        let bytes = [(); 2].map(|()| prop::collection::vec(any::<u8>(), 0..20));
        (texts, numbers, bytes).prop_map(|(texts, (codes, counts, times), [log_uuid, users])| {
            let [edge_id, ad_id, campaign_id, advertiser_id, region] = texts;
            let [format_version, index, device, agent, class, rules] = codes;
            let ([txn_seq, clicks], [pane_start_ms, watermark_ms]) = (counts, times);
            Partial {
                format_version,
                edge_id,
                log_uuid,
                txn_seq,
                index,
                pane_start_ms,
                ad_id,
                campaign_id,
                advertiser_id,
                region,
                device,
                agent,
                class,
                rules,
                clicks,
                users,
                watermark_ms,
            }
        })
    }

    /// Both take the bytes, and read the same of them; or neither does.
    fn held_to_prost(bytes: &[u8]) -> Result<(), TestCaseError> {
        match (Partial::decode(bytes), PartialView::read(bytes)) {
            (Ok(partial), Ok(view)) => prop_assert_eq!(view, PartialView::of(&partial)),
            (Err(_), Err(_)) => {}
            (prost, view) => prop_assert!(false, "{:?}, {:?} of {:02x?}", prost, view, bytes),
        }
        Ok(())
    }

    /// One field as it stands on the wire, of any number and kind.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        (0u32..20, 0u8..8, prop::collection::vec(any::<u8>(), 0..12), 0usize..14).prop_map(
            |(tag, kind, bytes, length)| {
                let mut field = Vec::new();
                encoding::encode_varint(u64::from(tag << 3 | u32::from(kind)), &mut field);
                if kind == 2 {
                    encoding::encode_varint(length as u64, &mut field);
                }
                field.extend(bytes);
                field
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read(partial in partial()) {
            let bytes = partial.encode_to_vec();
            prop_assert_eq!(PartialView::read(&bytes), Ok(PartialView::of(&partial)));
        }

        #[test]
        fn what_is_damaged_or_strange_is_read_as_prost_reads_it(
            partial in partial(),
            strange in prop::collection::vec(field(), 0..4),
            at in any::<prop::sample::Index>(),
            bits in 0u8..=255,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = partial.encode_to_vec();
            bytes.extend(strange.concat());
            held_to_prost(&bytes)?;
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
                held_to_prost(&bytes)?;
                held_to_prost(&bytes[..cut.index(bytes.len())])?;
            }
            held_to_prost(&strange.concat())?;
        }
    }
}

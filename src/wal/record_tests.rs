//! The records' bytes are pinned; every click comes back; any bytes decode or are refused.

use proptest::prelude::*;

use super::*;
use crate::click::Extras;

fn text(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..=bytes_max),
        (0..=bytes_max).prop_map(|length| vec![0; length]),
        Just(Vec::new()),
    ]
}

/// The parts of a click that borrow nothing, and its 14 texts in the order of `click_of`.
type Parts = ([u8; 16], bool, i64, i64, usize, usize, usize, Vec<Vec<u8>>);

fn parts() -> impl Strategy<Value = Parts> {
    let bounds = [16, 64, 64, 64, 128, 128, 128, 128, 32, 45, 64, 64, 512, 512];
    let texts = bounds.into_iter().map(|bound| text(bound).boxed()).collect::<Vec<_>>();
    let indices = (0..Class::ALL.len(), 0..Device::ALL.len(), 0..Agent::ALL.len());
    let head = (any::<[u8; 16]>(), any::<bool>(), any::<i64>(), any::<i64>());
    (head, indices, texts).prop_map(|((key, hashed, event, received), (class, device, agent), texts)| {
        (key, hashed, event, received, class, device, agent, texts)
    })
}

fn click_of((key, hashed, event_ms, _, class, device, agent, texts): &Parts) -> Click<'_> {
    Click {
        key: ClickKey { bytes: *key, hashed: *hashed },
        event_time: EventTime(*event_ms),
        class: Class::ALL[*class],
        device: Device::ALL[*device],
        agent: Agent::ALL[*agent],
        region: &texts[0],
        ad_id: &texts[1],
        campaign_id: &texts[2],
        advertiser_id: &texts[3],
        user_id: &texts[4],
        extras: Extras {
            request_id: &texts[5],
            click_id: &texts[6],
            impression_id: &texts[7],
            event_type: &texts[8],
            ip: &texts[9],
            country: &texts[10],
            region_text: &texts[11],
            user_agent: &texts[12],
            signature: &texts[13],
        },
    }
}

fn longest_zero_run(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte != 0).map(<[u8]>::len).max().unwrap_or(0)
}

fn small_click() -> Vec<u8> {
    let click = Click {
        key: ClickKey { bytes: *b"0123456789abcdef", hashed: true },
        event_time: EventTime(0x0102_0304_0506_0708),
        class: Class::Prefetch,
        device: Device::Tv,
        agent: Agent::Opera,
        region: b"DE",
        ad_id: b"ad",
        campaign_id: b"",
        advertiser_id: b"adv",
        user_id: b"u1",
        extras: Extras { ip: b"::1", ..Extras::default() },
    };
    let mut record = Vec::new();
    encode_click(&click, 9, &mut record);
    record
}

#[test]
fn the_bytes_of_a_click_are_pinned() {
    let record = small_click();
    let mut pinned = vec![74, 0, 1, 3];
    pinned.extend_from_slice(&(xxh3_64(b"\x02\x04\x05\x01\x02\x02\x00\x03DEadadv") as u32).to_le_bytes());
    pinned.extend_from_slice(b"0123456789abcdef\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\0\0\0\0");
    pinned.extend_from_slice(&xxh3_64(b"u1").to_le_bytes());
    pinned.extend_from_slice(b"\x02\x04\x05\x01\x02\x02\x00\x03DEadadv");
    pinned.extend_from_slice(b"\x01\x02\0u1\x06\x03\0::1");
    assert_eq!(record, pinned);
}

#[test]
fn the_id_that_is_the_key_is_written_once() {
    const TEXT: &[u8] = b"0190d5a4-77aa-7bcd-8e0f-0123456789ab";
    let key = ClickKey { bytes: 0x0190_d5a4_77aa_7bcd_8e0f_0123_4567_89ab_u128.to_be_bytes(), hashed: false };
    let upper = TEXT.to_ascii_uppercase();
    let encoded = |key, extras| {
        let mut record = Vec::new();
        encode_click(&Click { key, extras, user_id: b"", ..decoded_small_click() }, 9, &mut record);
        let Ok((Record::Click(click), _)) = decode(&record) else { panic!("a click") };
        assert_eq!(click.to_click(&mut [0; UUID_TEXT_BYTES]).extras, extras);
        (record[3], record.len())
    };
    fn of<'a>(request_id: &'a [u8], click_id: &'a [u8], impression_id: &'a [u8]) -> Extras<'a> {
        Extras { request_id, click_id, impression_id, ..Extras::default() }
    }
    let bare = encoded(key, Extras::default());
    assert_eq!(bare.0, 0);
    assert_eq!(encoded(key, of(TEXT, b"", b"")), (16, bare.1));
    assert_eq!(encoded(key, of(b"", TEXT, b"")), (32, bare.1));
    assert_eq!(encoded(key, of(b"", b"", TEXT)), (48, bare.1));
    // The first of several; another case of the letters is another text; a hash is nobody's text.
    assert_eq!(encoded(key, of(TEXT, TEXT, b"")), (16, bare.1 + 39));
    assert_eq!(encoded(key, of(&upper, b"", b"")), (0, bare.1 + 39));
    assert_eq!(encoded(ClickKey { hashed: true, ..key }, of(TEXT, b"", b"")), (1, bare.1 + 39));
}

fn decoded_small_click() -> Click<'static> {
    let Ok((Record::Click(click), _)) = decode(small_click().leak()) else { panic!("a click") };
    click.to_click(Box::leak(Box::new([0; UUID_TEXT_BYTES])))
}

#[test]
fn the_bytes_of_a_dead_letter_and_a_start_are_pinned() {
    let mut letter = Vec::new();
    let key = ClickKey { bytes: *b"0123456789abcdef", hashed: false };
    encode_dead_letter(Cause::Refused(Reason::TooOld), Some(key), 7, b"{}", &mut letter);
    assert_eq!(letter, b"\x23\0\x02\x04\x09\0\x02\x000123456789abcdef\x07\0\0\0\0\0\0\0\x02{}");
    let mut start = Vec::new();
    encode_start(&Start { incarnation: 3, nonce: *b"0123456789abcdef", started_ms: 4 }, &mut start);
    let tail = b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5";
    assert_eq!(start, [b"\x30\0\x03\0\x01\0\0\x000123456789abcdef".as_slice(), tail].concat());
}

#[test]
fn every_shorter_or_foreign_record_is_an_error_and_never_a_panic() {
    let record = small_click();
    for length in 0..record.len() {
        assert!(matches!(decode(&record[..length]), Err(RecordError::CutOff { .. })), "{length} bytes");
    }
    let with = |at: usize, value: u8| {
        let mut record = record.clone();
        record[at] = value;
        decode(&record).map(|_| ()).expect_err("refused")
    };
    assert_eq!(with(2, 9), RecordError::UnknownKind(9));
    assert_eq!(with(3, 0x80), RecordError::UnknownCode { field: "flags", value: 0x80 });
    assert_eq!(with(3, 0x11), RecordError::UnknownCode { field: "flags", value: 0x11 });
    assert_eq!(with(48, 3), RecordError::UnknownCode { field: "class", value: 3 });
    assert_eq!(with(49, 7), RecordError::UnknownCode { field: "device", value: 7 });
    assert_eq!(with(50, 10), RecordError::UnknownCode { field: "agent", value: 10 });
    assert_eq!(with(51, 2), RecordError::UnknownCode { field: "rules", value: 2 });
    assert_eq!(with(53, 200), RecordError::BadLength { field: "partial key", length: 74 });
    assert_eq!(with(63, 77), RecordError::UnknownCode { field: "extra tag", value: 77 });
}

#[test]
fn a_raw_click_of_any_length_is_kept_up_to_4_kib() {
    for length in [0, 1, 254, 255, 256, 510, 511, 4095, 4096, 4097, 100_000] {
        let raw: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let mut bytes = Vec::new();
        encode_dead_letter(Cause::OtherPayload, None, -5, &raw, &mut bytes);
        let Ok((Record::DeadLetter(letter), _)) = decode(&bytes) else { panic!("a dead letter of {length} bytes") };
        assert_eq!(letter.raw(), raw[..length.min(4096)]);
        assert_eq!((letter.cut_off(), letter.key(), letter.received_ms()), (length > 4096, None, -5));
    }
}

proptest! {
    #[test]
    fn a_click_comes_back_as_it_went_in_and_holds_no_zero_sector(parts in parts(), before in 0..3_usize, id in 0..4) {
        let spelt = uuid_text(&parts.0);
        let mut click = click_of(&parts);
        match id {
            0 => click.extras.request_id = &spelt,
            1 => click.extras.click_id = &spelt,
            2 => click.extras.impression_id = &spelt,
            _ => {}
        }
        let mut bytes = vec![0xEE; before];
        encode_click(&click, parts.3, &mut bytes);
        let (record, length) = decode(&bytes[before..]).expect("an encoded click decodes");
        prop_assert_eq!(length, bytes.len() - before);
        let Record::Click(record) = record else { panic!("a click") };
        let mut uuid = [0; UUID_TEXT_BYTES];
        prop_assert_eq!(record.to_click(&mut uuid), click);
        let written = click.key.hashed || id > 2;
        prop_assert_eq!(bytes.windows(spelt.len()).any(|text| text == spelt), written && id <= 2);
        prop_assert_eq!(record.received_ms(), parts.3);
        prop_assert_eq!(record.user_token(), user_token(click.user_id));
        prop_assert_eq!(record.dims_hash(), xxh3_64(record.partial_key()) as u32);
        prop_assert!(record.check() < 128);
        prop_assert!(longest_zero_run(&bytes) < 512);
    }

    #[test]
    fn the_same_bytes_of_a_dead_letter_hold_no_zero_sector(raw in text(5_000)) {
        let mut bytes = Vec::new();
        encode_dead_letter(Cause::Refused(Reason::Malformed), None, 0, &raw, &mut bytes);
        prop_assert!(longest_zero_run(&bytes) < 512);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..5_u8, fit in any::<bool>()) {
        if fit && bytes.len() >= 4 {
            let length = (bytes.len() as u16).to_le_bytes();
            bytes[..2].copy_from_slice(&length);
            bytes[2] = kind;
        }
        if let Ok((record, length)) = decode(&bytes) {
            prop_assert!(length <= bytes.len());
            match record {
                Record::Click(click) => drop(click.to_click(&mut [0; UUID_TEXT_BYTES])),
                Record::DeadLetter(letter) => drop(letter.raw()),
                Record::Start(_) => {}
            }
        }
    }

    #[test]
    fn a_changed_byte_of_a_click_decodes_or_is_refused(parts in parts(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = Vec::new();
        encode_click(&click_of(&parts), parts.3, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok((Record::Click(click), _)) = decode(&bytes) {
            let _ = click.to_click(&mut [0; UUID_TEXT_BYTES]);
        }
    }
}

//! Holds `partials.proto`, which others compile, and `messages.rs`, which we run, together; and pins the bytes.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, Value};
use tollgate_wire::{Checkpoint, Click, EndRecord, LogPosition, LogRange, Partial};

fn contract() -> DescriptorPool {
    let directory = env!("CARGO_MANIFEST_DIR");
    let files = protox::compile(["partials.proto"], [directory]).expect("the contract compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("its descriptors are consistent")
}

fn range() -> LogRange {
    LogRange { log_uuid: vec![1; 2], from_lsn: 2, to_lsn: 300, clicks: 4, clicks_total: 5 }
}

fn position() -> LogPosition {
    LogPosition { log_uuid: vec![1; 2], lsn: 2, chain: 3, clicks_total: 4 }
}

fn partial() -> Partial {
    Partial {
        format_version: 1,
        edge_id: "e".to_owned(),
        log_uuid: vec![3; 2],
        txn_seq: 4,
        index: 5,
        pane_start_ms: -6,
        ad_id: "a".to_owned(),
        campaign_id: "b".to_owned(),
        advertiser_id: "c".to_owned(),
        region: "d".to_owned(),
        device: 11,
        agent: 12,
        class: 13,
        rules: 14,
        clicks: 15,
        users: vec![16],
        watermark_ms: 17,
    }
}

fn end_record() -> EndRecord {
    EndRecord {
        format_version: 1,
        edge_id: "e".to_owned(),
        txn_seq: 3,
        partials: 4,
        crc: 5,
        ranges: vec![range()],
        watermark_ms: 7,
        horizon_ms: -8,
        stopped: true,
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        format_version: 1,
        edge_id: "e".to_owned(),
        txn_seq: 3,
        logs: vec![position()],
        nonce: vec![5; 2],
        data_dir_uuid: vec![6; 2],
        written_ms: 7,
    }
}

fn click() -> Click {
    Click {
        format_version: 1,
        edge_id: "e".to_owned(),
        log_uuid: vec![3; 2],
        lsn: 4,
        key: vec![5; 2],
        key_hashed: true,
        event_ms: -6,
        received_ms: 7,
        ad_id: "a".to_owned(),
        campaign_id: "b".to_owned(),
        advertiser_id: "c".to_owned(),
        region: "d".to_owned(),
        device: 13,
        agent: 14,
        class: 15,
        user_id: vec![16],
        request_id: vec![17],
        click_id: vec![18],
        impression_id: vec![19],
        event_type: vec![20],
        ip: vec![21],
        country: vec![22],
        region_text: vec![23],
        user_agent: vec![24],
        signature: vec![25],
    }
}

/// The fields of our twin, in the order of their numbers, as `(name, value)`: taken from its `Debug`, which prost derives.
fn names_in(debug: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = Vec::new();
    for line in debug.lines() {
        let line = line.trim();
        if depth == 1
            && let Some((name, _)) = line.split_once(": ")
        {
            names.push(name.to_owned());
        }
        depth += line.matches(['{', '[', '(']).count();
        depth -= line.matches(['}', ']', ')']).count();
    }
    names
}

/// Every field of the contract is there in ours under its name, number and type, and none beside them: ours, with every
/// field set, is read by the contract without unknown fields, each value is where it should be, and goes back unchanged.
fn agrees<M: Message + std::fmt::Debug + Default + PartialEq>(name: &str, ours: &M) {
    let descriptor =
        contract().get_message_by_name(&format!("tollgate.v1.{name}")).expect("the contract has the message");
    let bytes = ours.encode_to_vec();
    let theirs = DynamicMessage::decode(descriptor.clone(), bytes.as_slice()).expect("the contract reads our bytes");
    assert_eq!(theirs.unknown_fields().count(), 0, "{name} has fields that the contract lacks");
    let fields: Vec<_> = descriptor.fields().collect();
    let names: Vec<String> = fields.iter().map(|field| field.name().to_owned()).collect();
    assert_eq!(names_in(&format!("{ours:#?}")), names, "{name}: names in order");
    for field in &fields {
        assert!(theirs.has_field(field), "{name}.{} is not in our bytes", field.name());
    }
    assert_eq!(theirs.encode_to_vec(), bytes, "{name} goes back as it came");
    assert_eq!(M::decode(theirs.encode_to_vec().as_slice()).as_ref(), Ok(ours));
    for field in &fields {
        // Signed times are zigzag and chains are fixed: another integer type would read the same bytes as another number.
        let value = theirs.get_field(field);
        match (field.kind(), field.name()) {
            (Kind::Sint64, _) => {
                assert!(matches!(&*value, Value::I64(value) if [-6, 17, 7, -8].contains(value)), "{name}")
            }
            (Kind::Fixed64, "chain") => assert_eq!(*value, Value::U64(3)),
            (Kind::Uint32 | Kind::Uint64 | Kind::String | Kind::Bytes | Kind::Bool | Kind::Message(_), _) => {}
            (kind, field) => panic!("{name}.{field} has type {kind:?}, which nothing here checks"),
        }
    }
}

#[test]
fn the_contract_and_our_messages_agree() {
    agrees("Partial", &partial());
    agrees("LogRange", &range());
    agrees("EndRecord", &end_record());
    agrees("LogPosition", &position());
    agrees("Checkpoint", &checkpoint());
    agrees("Click", &click());
    assert_eq!(contract().all_messages().count(), 6);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_are_pinned() {
    assert_eq!(
        hex(&partial().encode_to_vec()),
        "08011201651a02030320042805300b3a01614201624a0163520164580b600c680d700e780f82010110880122"
    );
    assert_eq!(hex(&end_record().encode_to_vec()), "0801120165180320042805320d0a020101100218ac0220042805380e400f4801");
    assert_eq!(
        hex(&click().encode_to_vec()),
        "08011201651a02030320042a0205053001380b400e4a01615201625a0163620164680d700e780f".to_owned()
            + "820101108a010111920101129a010113a2010114aa010115b2010116ba010117c2010118ca010119"
    );
    assert_eq!(
        hex(&checkpoint().encode_to_vec()),
        "0801120165180322110a02010110021903000000000000002004".to_owned() + "2a02050532020606380e"
    );
}

//! Drives. The raw topic: the clicks that a transaction counts, read back from the log, one record each.

use std::ops::ControlFlow;

use prost::Message as _;
use rdkafka::message::OwnedHeaders;
use tollgate_wire::{Click, FORMAT_VERSION, Transaction};

use super::{SendError, headers};
use crate::export::Names;
use crate::export::thread::ReadFrames;
use crate::wal::record::{ClickRecord, Record, UUID_TEXT_BYTES};

/// Takes the ad's id, the click and the headers of a record.
pub type Take<'a> = dyn FnMut(&[u8], &[u8], &OwnedHeaders) -> Result<(), SendError> + 'a;

/// Gives every click of the transaction's ranges.
pub fn send(
    transaction: &Transaction,
    names: &Names,
    log: &mut ReadFrames,
    take: &mut Take<'_>,
) -> Result<(), SendError> {
    let headers = headers("click");
    let mut bytes = Vec::new();
    for range in transaction.end.ranges.iter().filter(|range| range.clicks > 0) {
        let log_id = names.log(&range.log_uuid).expect("a log's name has 16 bytes");
        let mut taken = Ok(());
        log(log_id, range.from_lsn, range.to_lsn, &mut |frame| {
            for (lsn, record) in (frame.header.first_lsn..).zip(&frame.records) {
                let Record::Click(click) = record else { continue };
                if !(range.from_lsn + 1..=range.to_lsn).contains(&lsn) {
                    continue;
                }
                let click = wire(&transaction.end.edge_id, &range.log_uuid, lsn, click);
                bytes.clear();
                click.encode_raw(&mut bytes);
                taken = take(click.ad_id.as_bytes(), &bytes, &headers);
                if taken.is_err() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })
        .map_err(SendError::Log)?;
        taken?;
    }
    Ok(())
}

fn wire(edge_id: &str, log_uuid: &[u8], lsn: u64, record: &ClickRecord<'_>) -> Click {
    let mut uuid = [0; UUID_TEXT_BYTES];
    let click = record.to_click(&mut uuid);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let extras = &click.extras;
    Click {
        format_version: FORMAT_VERSION,
        edge_id: edge_id.to_owned(),
        log_uuid: log_uuid.to_vec(),
        lsn,
        key: click.key.bytes.to_vec(),
        key_hashed: click.key.hashed,
        event_ms: click.event_time.0,
        received_ms: record.received_ms(),
        ad_id: text(click.ad_id),
        campaign_id: text(click.campaign_id),
        advertiser_id: text(click.advertiser_id),
        region: text(click.region),
        device: click.device as u32,
        agent: click.agent as u32,
        class: click.class as u32,
        user_id: click.user_id.to_vec(),
        request_id: extras.request_id.to_vec(),
        click_id: extras.click_id.to_vec(),
        impression_id: extras.impression_id.to_vec(),
        event_type: extras.event_type.to_vec(),
        ip: extras.ip.to_vec(),
        country: extras.country.to_vec(),
        region_text: extras.region_text.to_vec(),
        user_agent: extras.user_agent.to_vec(),
        signature: extras.signature.to_vec(),
    }
}

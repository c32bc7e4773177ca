//! Pure. From a connection's bytes to staged records: its requests are framed, their clicks parsed, checked and encoded.

use crate::config::Config;
use crate::core::home::Home;
use crate::core::lanes::{Lane, status_of};
use crate::core::staging::{OpenRequest, Staging};
use crate::event::Now;
use crate::metrics::{Ledger, Shed};
use crate::net::assembly::AssemblyPool;
use crate::net::connection::Step;
use crate::net::fault::Fault;
use crate::net::http::RequestInfo;
use crate::net::media::BodyFormat;
use crate::net::reply::{Outcome, Ticket};
use crate::parse::{Context, Format, Item, Parser};
use crate::wal::record::{self, Cause};

/// What a core's receiving side works with, lent for one event.
pub struct Intake<'a> {
    pub config: &'a Config,
    pub parser: &'a mut Parser,
    pub assembly: &'a mut AssemblyPool,
    pub staging: &'a mut Staging,
    pub ledger: &'a mut Ledger,
    pub home: &'a Home,
    /// Why nothing can be taken at present.
    pub shed: Option<Shed>,
    pub now: Now,
}

/// How a connection's steps ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    NeedMore,
    Paused,
    Stopped,
}

/// Takes every step that the bytes allow.
pub fn feed(lane: &mut Lane, mut input: &[u8], intake: &mut Intake<'_>) -> Fed {
    if let Some(open) = &mut lane.open {
        intake.staging.unpark(open);
    }
    let fed = loop {
        let Lane { connection, layout, open, id, refused, .. } = lane;
        match connection.next(&mut input, intake.now.mono_ns, &intake.config.http, intake.assembly) {
            Step::Begin { ticket, request } => *open = Some(begin(ticket, request, intake)),
            Step::Body { bytes, last } => {
                let Some(request) = open.as_mut() else { unreachable!("a body has a request that began") };
                take_piece(request, layout, bytes, intake);
                if last && let Some(request) = open.take() {
                    // The body's borrow of the connection ends here.
                    match finish(request, intake) {
                        Finished::Staged(request) => intake.staging.stage(*id, request),
                        Finished::Settled(ticket, outcome) => {
                            let lsn = intake.home.writer.durable_lsn();
                            refused.push(status_of(&outcome));
                            connection.settle(ticket, outcome, lsn, &intake.config.http);
                            lane.dirty = true;
                        }
                    }
                }
            }
            Step::Abandon { ticket: _, status } => {
                if let Some(request) = open.take() {
                    intake.staging.drop_open(request);
                }
                refused.extend(status);
                lane.dirty = true;
            }
            Step::Refused { status } => {
                refused.push(status);
                lane.dirty = true;
            }
            Step::Paused => break Fed::Paused,
            Step::NeedMore => break Fed::NeedMore,
            Step::Stop => break Fed::Stopped,
        }
    };
    if let Some(open) = &mut lane.open {
        intake.staging.park(open);
        lane.dirty |= lane.connection.owes_continue();
    }
    fed
}

fn begin(ticket: Ticket, request: RequestInfo, intake: &mut Intake<'_>) -> OpenRequest {
    let format = match request.format {
        BodyFormat::Json => Format::Json,
        BodyFormat::Ndjson => Format::Lines,
        BodyFormat::Text => Format::Text,
    };
    let crowded = intake.staging.bytes() as u64 > intake.config.http.staging_bytes_max;
    OpenRequest {
        ticket,
        format,
        prefetch: request.prefetch,
        clicks: 0,
        errors: Vec::new(),
        from: intake.staging.mark(),
        own: Vec::new(),
        parked: false,
        shed: intake.shed.or(crowded.then_some(Shed::LogBehind)),
        fault: None,
        began_ns: intake.now.mono_ns,
    }
}

/// Parses a piece of a body: one record for each click of it, good or refused.
fn take_piece(open: &mut OpenRequest, layout: &mut crate::parse::Layout, bytes: &[u8], intake: &mut Intake<'_>) {
    if open.fault.is_some() {
        return;
    }
    let mut cursor = match intake.parser.open(open.format, bytes) {
        Ok(cursor) => cursor,
        Err(unreadable) => {
            open.fault = Some(Fault::Document { why: unreadable.advice() });
            return;
        }
    };
    let now_ms = intake.now.wall_ms;
    let context = Context { now_ms, horizon_ms: intake.home.dedup.horizon_ms(), prefetch: open.prefetch };
    let clicks_max = intake.config.http.batch_clicks_max;
    loop {
        let show = |item: Item<'_>| {
            if open.clicks == clicks_max {
                return false;
            }
            if open.shed.is_none() {
                let sink = intake.staging.sink(open);
                match item.outcome {
                    Ok(click) => record::encode_click(&click, now_ms, sink),
                    Err(refusal) => {
                        let cause = Cause::Refused(refusal.reason);
                        record::encode_dead_letter(cause, item.key, now_ms, item.raw, sink);
                        open.list_error(refusal);
                    }
                }
            }
            open.clicks += 1;
            true
        };
        match intake.parser.next(&mut cursor, layout, &context, show) {
            Some(true) => {}
            Some(false) => {
                open.fault = Some(Fault::TooManyClicks { limit: clicks_max });
                return;
            }
            None => return,
        }
    }
}

enum Finished {
    Staged(OpenRequest),
    Settled(Ticket, Outcome),
}

/// The request is whole. From here on its clicks count as received.
fn finish(open: OpenRequest, intake: &mut Intake<'_>) -> Finished {
    let ticket = open.ticket;
    let fault = open.fault.or((open.clicks == 0).then_some(Fault::NoClicks));
    if let Some(fault) = fault {
        intake.staging.drop_open(open);
        return Finished::Settled(ticket, Outcome::Refused(fault));
    }
    let clicks = u64::from(open.clicks);
    intake.ledger.received += clicks;
    // Looked at again: it may have begun long ago, together with many others.
    let crowded = intake.staging.bytes_before(&open) as u64 > intake.config.http.staging_bytes_max;
    if let Some(shed) = open.shed.or(crowded.then_some(Shed::LogBehind)) {
        intake.ledger.shed[shed as usize] += clicks;
        intake.staging.drop_open(open);
        return Finished::Settled(ticket, Outcome::Shed(shed));
    }
    intake.ledger.in_flight += clicks;
    Finished::Staged(open)
}

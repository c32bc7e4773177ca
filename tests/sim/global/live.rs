//! Drives. A process of the global tier: the product's store and reading, and beside them what the model makes of the same records.

use std::collections::BTreeMap;

use tollgate_global::{Filter, Marks, PANE_MS, Place, Question, Reading, Store, Subject, Window, WindowState};
use tollgate_wire::{EndRecord, Partial, decode_end_record, decode_partial};

use super::PARTITION;
use crate::broker::{Kind, Record};

/// What a process has in memory.
pub(super) struct Live {
    pub store: Store,
    pub reading: Reading,
    /// Where the client reads; and up to where all that is told was counted before.
    pub at: i64,
    pub from: i64,
    /// As the model sees it: partials with no end record yet, by edge; and what is ready to be committed.
    pub open: BTreeMap<String, Vec<Partial>>,
    pub ready: Vec<(i64, EndRecord, Vec<Partial>)>,
}

impl Live {
    /// Of what is to be committed: what was said to be settled of it, and its version.
    pub fn settled(&self, marks: Marks) -> Result<BTreeMap<(String, i64), u64>, String> {
        let mut settled = BTreeMap::new();
        for partial in self.ready.iter().flat_map(|(_, _, partials)| partials) {
            if partial.pane_start_ms + PANE_MS <= marks.closed_before_ms {
                let key = (partial.ad_id.clone(), partial.pane_start_ms);
                let (state, version) = self.version(&key)?;
                if state != WindowState::Open {
                    settled.insert(key, version);
                }
            }
        }
        Ok(settled)
    }

    /// What a question about one ad's pane is answered.
    pub fn version(&self, (ad, pane_ms): &(String, i64)) -> Result<(WindowState, u64), String> {
        let question = Question {
            subject: Subject::Ad(ad.clone()),
            span: Window::of(*pane_ms, PANE_MS),
            granularity: None,
            group_by: None,
            filter: Filter::default(),
            after: None,
            rows_max: 1,
        };
        let snapshot = self.store.snapshot().map_err(|error| error.to_string())?;
        let answer = snapshot.count(&question).map_err(|error| error.to_string())?.total;
        Ok((answer.state, answer.version))
    }

    pub fn take(&mut self, offset: i64, record: &Record) -> Result<(), String> {
        let kind = match record.kind {
            Kind::Partial => tollgate_global::Kind::Partial,
            Kind::End => tollgate_global::Kind::End,
            Kind::Checkpoint => return Err("a checkpoint among partials".to_owned()),
        };
        let place = Place { partition: PARTITION, offset };
        let taken = self.reading.record(place, Some(kind), record.key.as_bytes(), &record.payload);
        taken.map_err(|error| error.to_string())?;
        self.at = offset + 1;
        if offset < self.from {
            return Ok(());
        }
        let open = self.open.entry(record.key.clone()).or_default();
        match record.kind {
            Kind::Partial => open.push(decode_partial(&record.payload).map_err(|error| error.to_string())?),
            Kind::End | Kind::Checkpoint => {
                let end = decode_end_record(&record.payload).map_err(|error| error.to_string())?;
                self.ready.push((offset, end, std::mem::take(open)));
            }
        }
        Ok(())
    }
}

//! How fast a start reads its log back: a log is written by the writer itself, then recovered into a dedup table as
//! `tollgate serve` does it. One thread; the processor's time of it is what the promise is about.

use crate::scratch::Scratch;
use memmap2::{Advice, MmapMut};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tollgate::click::{Agent, Class, Click, ClickKey, Device, EventTime, Extras};
use tollgate::config::{DedupConfig, RECOVERY_CLICKS_PER_SECOND};
use tollgate::core::incarnation::restore;
use tollgate::dedup;
use tollgate::event::FrameBuffer;
use tollgate::wal::prepare::prepare_segment;
use tollgate::wal::record::encode_click;
use tollgate::wal::recover::recover;
use tollgate::wal::segments::{DataDir, LogDir, open_segment_for_writing};
use tollgate::wal::writer::{FrameMeta, FrameRoom, LogStart, Writer, WriterConfig, buffer_bytes};
use tollgate_loadgen::ads::Ads;
use tollgate_loadgen::cpu;
use tollgate_loadgen::text::mix;

const FRAME_BYTES: u32 = 256 << 10;
const SEGMENT_BYTES: u64 = 128 << 20;
const BEGIN_MS: i64 = 1_763_791_000_000;
/// Clicks that were logged in a millisecond.
const CLICKS_PER_MS: u64 = 1_000;
const WINDOW_MS: i64 = 600_000;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 4_000_000)]
    clicks: u64,
    /// Rounds; the best one counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[arg(long, default_value_t = 256 << 20)]
    dedup_memory_bytes: u64,
    /// Where the log is written, for the time of the run.
    #[arg(long, default_value = "target")]
    scratch: PathBuf,
    /// Fail if a core recovers less than is promised.
    #[arg(long)]
    check: bool,
}

/// One recovery.
#[derive(Clone, Copy, Debug)]
struct Round {
    clicks: u64,
    wall_s: f64,
    cpu_s: f64,
    keys: u64,
}

pub fn run(args: &Args) -> Result<(), String> {
    let scratch = Scratch::new(&args.scratch, "recovery").map_err(|error| format!("--scratch: {error}"))?;
    let bytes = write_log(&scratch.path, args.clicks).map_err(|error| format!("writing a log: {error}"))?;
    let mut best: Option<Round> = None;
    for number in 0..args.rounds {
        let round = recover_once(&scratch.path, args.dedup_memory_bytes)?;
        eprintln!("round {} of {}: {round:?}", number + 1, args.rounds);
        if round.clicks != args.clicks || round.keys != args.clicks {
            return Err(format!(
                "{} clicks were logged, {} recovered, {} remembered",
                args.clicks, round.clicks, round.keys
            ));
        }
        best = Some(best.filter(|best| best.cpu_s <= round.cpu_s).unwrap_or(round));
    }
    let best = best.ok_or("--rounds 0: at least one")?;
    let (per_core, per_s) = (best.clicks as f64 / best.cpu_s, best.clicks as f64 / best.wall_s);
    println!(
        "{}",
        json!({
            "clicks": best.clicks,
            "log_bytes": bytes,
            "clicks_per_core_second": per_core as u64,
            "clicks_per_second": per_s as u64,
            "mb_per_second": bytes as f64 / best.wall_s / 1e6,
            "promised_clicks_per_core_second": RECOVERY_CLICKS_PER_SECOND,
        })
    );
    println!("recovery: {:.2} M clicks/s of one core, {:.2} M clicks/s by the clock", per_core / 1e6, per_s / 1e6);
    if args.check && per_core < RECOVERY_CLICKS_PER_SECOND as f64 {
        return Err(format!("a core recovers {per_core:.0} clicks/s, {RECOVERY_CLICKS_PER_SECOND} are promised"));
    }
    Ok(())
}

/// Recovers the directory's log as a start does; it changes nothing, so it can be done again.
fn recover_once(dir: &Path, dedup_memory_bytes: u64) -> Result<Round, String> {
    let memory = MmapMut::map_anon(dedup_memory_bytes as usize).map_err(|error| error.to_string())?;
    // Wishes, as in a start.
    let _ = memory.advise(Advice::HugePage).and_then(|()| memory.advise(Advice::PopulateWrite));
    let dedup = DedupConfig { window_ms: WINDOW_MS, window_min_ms: WINDOW_MS / 10, memory_bytes: dedup_memory_bytes };
    let mut table = dedup::Table::new(memory, [5; 16], &dedup, i64::MIN, BEGIN_MS + WINDOW_MS / 2);
    let (began, began_cpu_ns) = (Instant::now(), cpu::of_this_thread_ns());
    let mut clicks = 0;
    recover(dir, &[], &mut |_| {}, &mut |_, frame| clicks += restore(std::slice::from_mut(&mut table), frame))
        .map_err(|error| error.to_string())?;
    let cpu_ns = cpu::of_this_thread_ns() - began_cpu_ns;
    Ok(Round { clicks, wall_s: began.elapsed().as_secs_f64(), cpu_s: cpu_ns as f64 / 1e9, keys: table.keys() })
}

/// Writes that many clicks in full frames; returns the bytes written. Not synced: nothing here is to be kept.
fn write_log(dir: &Path, clicks: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let data_dir = DataDir::open(dir)?;
    let log = data_dir.create_log(0, [6; 16])?;
    let config = WriterConfig {
        frame_bytes: FRAME_BYTES,
        segment_bytes: SEGMENT_BYTES,
        commit_delay_ns: 0,
        commit_spacing_ns: 0,
        core: 0,
        dedup_key: 0,
        nonce: [7; 16],
    };
    let memory = MmapMut::map_anon(buffer_bytes(FRAME_BYTES))?;
    let mut writer = Writer::new(config, LogStart::new(log.log_id, 1), vec![Box::new(FrameBuffer { memory, id: 0 })]);
    let mut disk = Disk { log, file: None, written: 0 };
    let (ads, mut record) = (Ads::zipf(1_000, 1.1), Vec::new());
    for number in 0..clicks {
        record.clear();
        encode(number, &ads, &mut record);
        if writer.room(record.len()) != FrameRoom::Now {
            disk.frame(&mut writer, at_ms(number))?;
        }
        writer.append(&record);
    }
    disk.frame(&mut writer, at_ms(clicks))?;
    Ok(disk.written)
}

fn at_ms(number: u64) -> i64 {
    BEGIN_MS + (number / CLICKS_PER_MS) as i64
}

/// A click of the load generator, as its record.
fn encode(number: u64, ads: &Ads, out: &mut Vec<u8>) {
    let random = mix(number);
    let ad = ads.pick(random);
    let (ad_id, campaign_id) = (format!("ad_{ad:06}"), format!("c_{:05}", ad / 10));
    let user_id = format!("u_{:08}", mix(random) % 1_000_000);
    let click = Click {
        key: ClickKey { bytes: (u128::from(random) << 64 | u128::from(number)).to_le_bytes(), hashed: false },
        event_time: EventTime(at_ms(number)),
        class: Class::Valid,
        device: Device::Mobile,
        agent: Agent::Unknown,
        region: b"US",
        ad_id: ad_id.as_bytes(),
        campaign_id: campaign_id.as_bytes(),
        advertiser_id: b"",
        user_id: user_id.as_bytes(),
        extras: Extras::default(),
    };
    encode_click(&click, at_ms(number), out);
}

/// Carries a writer's frames to the files, one after the other.
struct Disk {
    log: LogDir,
    file: Option<(u64, File)>,
    written: u64,
}

impl Disk {
    fn frame(&mut self, writer: &mut Writer, built_ms: i64) -> std::io::Result<()> {
        writer.seal(FrameMeta { built_ms, horizon_ms: i64::MIN, watermark_ms: built_ms, flags: 0 });
        while let Some(segment) = writer.wants_segment() {
            prepare_segment(&self.log.path, segment, SEGMENT_BYTES, Duration::ZERO)?;
            writer.segment_ready(segment);
        }
        while let Some((buffer, write)) = writer.next_write(0) {
            let from = write.buffer_offset as usize;
            let bytes = &buffer.memory[from..from + write.length as usize];
            self.file(write.segment)?.write_all_at(bytes, write.file_offset)?;
            self.written += u64::from(write.length);
            assert!(writer.written(buffer, true).is_ok(), "the write succeeded");
        }
        Ok(())
    }

    fn file(&mut self, segment: u64) -> std::io::Result<&File> {
        let open = match self.file.take().filter(|(open, _)| *open == segment) {
            Some(open) => open,
            None => (segment, open_segment_for_writing(&self.log.path, segment)?),
        };
        Ok(&self.file.insert(open).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_log_comes_back_whole() {
        let scratch = Scratch::new(&std::env::temp_dir(), "recovery-test").expect("a directory");
        write_log(&scratch.path, 5_000).expect("a log is written");
        for _ in 0..2 {
            let round = recover_once(&scratch.path, dedup::MEMORY_BYTES_MIN).expect("a log is recovered");
            assert_eq!((round.clicks, round.keys), (5_000, 5_000));
        }
    }
}

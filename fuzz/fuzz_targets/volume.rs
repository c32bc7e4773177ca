//! Many executions of a target's check, on all CPUs: mutations of its seeds and of what coverage-guided runs left in `corpus/`, each also as
//! it stands. `volume TARGET BATCHES[/FROM]`: so many batches of 10,000, from that one on; a batch is the seed of its mutations. Prints one
//! JSON document; what is said of disjoint batches adds up. `of` is a hash of what is mutated, which no repository keeps.

#[path = "../../tests/fuzz/checkpoint.rs"]
mod checkpoint;
#[path = "../../tests/fuzz/click.rs"]
mod click;
#[path = "../../tests/fuzz/http.rs"]
mod http;
#[path = "../../tests/fuzz/log.rs"]
mod log;
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mutate::{Random, mutated};

const BATCH: u64 = 10_000;
/// Of `log` and `http`, one execution in so many has all of the check: of a log, its files take most of the time.
const WHOLE_EVERY: u64 = 32;
/// libFuzzer's own default.
const INPUT_BYTES_MAX: usize = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, batches] = &arguments[..] else { return usage() };
    let (count, from) = batches.split_once('/').unwrap_or((batches, "0"));
    let (Ok(count @ 1..), Ok(from)) = (count.parse::<u64>(), from.parse::<u64>()) else { return usage() };
    let Some([check, most]) = checks(target) else { return usage() };
    let interesting = mutate::interesting(target).expect("of each target");
    let inputs = inputs(target);
    let began = Instant::now();
    let alone = |check: fn(&[u8]), input: &[u8]| {
        http::forget();
        fails(check, input)
    };
    let mut as_they_stand = inputs.iter().find(|input| alone(check, input));
    if target == "http" {
        as_they_stand = as_they_stand.or_else(|| inputs.iter().find(|input| alone(http::cut_at_every_byte, input)));
    }
    let as_they_stand = as_they_stand.map(|input| (None, input.clone()));
    let (next, done, failed) = (AtomicU64::new(from), AtomicU64::new(0), Mutex::new(as_they_stand));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    if batch >= from + count || failed.lock().expect("no one panics with it").is_some() {
                        return;
                    }
                    // A batch fails again by itself.
                    http::forget();
                    let mut random = Random::new(batch.wrapping_mul(0xd129_0b5a_5a0c_c6b1));
                    for nth in 0..BATCH {
                        let input = mutated(&mut random, &inputs, interesting);
                        if fails(if nth % WHOLE_EVERY == 0 { check } else { most }, &input) {
                            *failed.lock().expect("no one panics with it") = Some((Some(batch), input));
                            return;
                        }
                    }
                    done.fetch_add(BATCH, Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no one panics with it");
    if let Some((batch, input)) = &failed {
        println!("FAILED: the input is b\"{}\"", input.escape_ascii());
        batch.inspect(|batch| println!("again: fuzz/run volume {target} 1/{batch}"));
    }
    let done = done.into_inner();
    let connections = if target == "http" { connections(done) } else { String::new() };
    println!(
        "{{\"campaign\":\"fuzz {target}\",\"commit\":\"{}\",\"build\":\"sanitizer {}\",\"range\":[{from},{}],\"inputs\":{},\"of\":\"{:016x}\",\"executions\":{done},{connections}\"seconds\":{},\"verdict\":\"{}\"}}",
        std::env::var("TOLLGATE_COMMIT").as_deref().unwrap_or("unnamed"),
        match option_env!("RUSTFLAGS") {
            Some(flags) if flags.contains("-Zsanitizer=address") => "address",
            _ => "none",
        },
        from + count - 1,
        inputs.len(),
        xxhash_rust::xxh3::xxh3_64(&inputs.concat()),
        began.elapsed().as_secs(),
        if failed.is_none() { "pass" } else { "fail" },
    );
    ExitCode::from(u8::from(failed.is_some()))
}

/// All of a target's check, and that of most executions.
fn checks(target: &str) -> Option<[fn(&[u8]); 2]> {
    match target {
        "http" => Some([http::check, http::check_a_third]),
        "click" => Some([click::check; 2]),
        "log" => Some([log::check, |input| drop(log::decodes(input))]),
        "checkpoint" => Some([checkpoint::check; 2]),
        _ => None,
    }
}

/// How many connections so many inputs of `http` were given to.
fn connections(done: u64) -> String {
    let [of_all, of_a_third] = http::CONNECTIONS;
    let all = done / BATCH * BATCH.div_ceil(WHOLE_EVERY);
    format!("\"connections\":{},", all * of_all + (done - all) * of_a_third)
}

fn usage() -> ExitCode {
    eprintln!("usage: fuzz/run volume http|click|log|checkpoint BATCHES[/FROM]; a batch is {BATCH} executions");
    ExitCode::from(64)
}

fn fails(check: fn(&[u8]), input: &[u8]) -> bool {
    catch_unwind(|| check(input)).is_err()
}

/// The seeds, and the corpus of earlier runs, whose inputs libFuzzer keeps within that length.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folders = ["seeds", "corpus"].map(|folder| format!("{}/{folder}/{target}", env!("CARGO_MANIFEST_DIR")));
    let mut paths: Vec<_> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.map(|entry| entry.expect("an input").path()))
        .collect();
    paths.sort();
    let read = |path| std::fs::read(path).expect("an input");
    paths.iter().map(read).filter(|input| input.len() <= INPUT_BYTES_MAX).collect()
}

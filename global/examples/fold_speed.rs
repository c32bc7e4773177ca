//! What consuming costs at a high rate: seconds of partials from several edges fold into the same rows, while one ad's day is asked
//! for again and again. Run it with `--release`; arguments: partials a second, rows, seconds, queries a second, `http` to ask through
//! the query API. On one core: `taskset -c 1`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tollgate_global::{
    Batch, DAY_MS, Delivered, Delivery, Entries, Filter, Options, Page, Place, QuerySide, QuerySideConfig, Question,
    Store, Subject, Window,
};
use tollgate_wire::users::Users;
use tollgate_wire::{EndRecord, LogRange, Partial, crc_of};

const START_MS: i64 = 1_712_908_800_000;
const EDGES: u64 = 10;
const REGIONS: [&str; 4] = ["DE", "US", "FR", "IN"];
/// Connections that ask in turn, so that one slow answer does not hold up the next question.
const CONNECTIONS: u64 = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let http = std::env::args().any(|argument| argument == "http");
    let numbers = std::env::args().skip(1).filter(|argument| argument != "http");
    let arguments: Vec<u64> = numbers.map(|text| text.parse()).collect::<Result<_, _>>()?;
    let argument = |at: usize, default: u64| arguments.get(at).copied().unwrap_or(default);
    let (rate, rows, seconds, queries) = (argument(0, 50_000), argument(1, 10_000), argument(2, 20), argument(3, 100));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store");
    let options = Options { cache_bytes: 128 << 20, open_bytes_max: 256 << 20, ..Options::default() };
    let store = Arc::new(Store::open_with(&path, options)?);
    let done = Arc::new(AtomicBool::new(false));
    let asked = Asked { done: done.clone(), queries, ads: rows / 4 };
    let readers = match (queries, http) {
        (0, _) => Vec::new(),
        (_, false) => {
            let store = store.clone();
            vec![std::thread::spawn(move || asked.each(0, 1, |ad| ask(&store, ad)))]
        }
        (_, true) => ask_by_http(store.clone(), folder.path(), &asked)?,
    };

    let mut random = 7u64;
    let (mut cpu_us, mut worst_ms, mut kept_us) = (0.0f64, 0.0f64, 0.0f64);
    for second in 1..=seconds {
        let deliveries: Vec<Delivered> =
            (0..EDGES).map(|edge| Delivered::Whole(delivery(edge, second, rate / EDGES, rows, &mut random))).collect();
        let (offsets, now_ms) = (BTreeMap::from([(0, second as i64)]), START_MS + second as i64 * 1_000);
        let batch = Batch { deliveries: &deliveries, offsets: &offsets, now_ms, closing_cap_ms: None };
        let (began, cpu) = (Instant::now(), thread_cpu_us());
        let applied = store.apply(&batch)?;
        assert_eq!((applied.partials, applied.troubles.len()), (rate / EDGES * EDGES, 0));
        worst_ms = worst_ms.max(began.elapsed().as_secs_f64() * 1e3);
        cpu_us += thread_cpu_us() - cpu;
        let cpu = thread_cpu_us();
        while store.keep_up(now_ms)? {}
        kept_us += thread_cpu_us() - cpu;
    }
    let partials = (rate / EDGES * EDGES * seconds) as f64;
    println!(
        "{rate} partials/s into {rows} rows: {:.3} us of CPU a partial, {:.0} % of a core; kept in order {:.1} %; worst batch {worst_ms:.0} ms",
        cpu_us / partials,
        cpu_us / seconds as f64 / 1e4,
        kept_us / seconds as f64 / 1e4,
    );
    done.store(true, Ordering::Release);
    if !readers.is_empty() {
        let mut micros: Vec<f64> =
            readers.into_iter().flat_map(|reader| reader.join().expect("the reader answers")).collect();
        micros.sort_by(f64::total_cmp);
        let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize];
        println!(
            "one ad over a day: {} queries, p50 {:.0} us, p99 {:.0} us, worst {:.0} us",
            micros.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    let snapshot = store.snapshot()?;
    let stored = snapshot.rows(tollgate_global::Grain::Pane)?;
    println!("{stored} rows of panes; file {} MB", std::fs::metadata(&path)?.len() >> 20);
    let clicks: u64 = snapshot.edges(START_MS)?.iter().map(|edge| edge.clicks).sum();
    assert_eq!(snapshot.totals(i64::MIN, i64::MAX)?.gross(), clicks, "every click is counted");
    Ok(())
}

/// Who asks, until when.
#[derive(Clone)]
struct Asked {
    done: Arc<AtomicBool>,
    queries: u64,
    ads: u64,
}

impl Asked {
    /// Asks every `of`-th question of the pace for one ad after the other; how long each answer took from when it was due.
    fn each(&self, from: u64, of: u64, mut ask: impl FnMut(&str)) -> Vec<f64> {
        let (began, mut micros) = (Instant::now(), Vec::new());
        for number in (from..).step_by(of as usize) {
            let due = began + Duration::from_micros(number * 1_000_000 / self.queries);
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(left);
            }
            if self.done.load(Ordering::Acquire) {
                break;
            }
            ask(&format!("ad_{}", number * 31 % self.ads.max(1)));
            micros.push(due.elapsed().as_secs_f64() * 1e6);
        }
        micros
    }
}

fn ask(store: &Store, ad: &str) {
    let span = Window { start_ms: START_MS - DAY_MS, end_ms: START_MS + DAY_MS };
    let question = Question {
        subject: Subject::Ad(ad.to_owned()),
        span,
        granularity: None,
        group_by: None,
        filter: Filter::default(),
        after: None,
        rows_max: 0,
    };
    let counted = store.snapshot().map(|snapshot| snapshot.count(&question));
    assert!(matches!(counted, Ok(Ok(_))), "the store answers");
}

/// The same through the query API, over connections that stay open.
fn ask_by_http(
    store: Arc<Store>,
    data_dir: &Path,
    asked: &Asked,
) -> std::io::Result<Vec<std::thread::JoinHandle<Vec<f64>>>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let side = QuerySideConfig { data_dir: data_dir.to_owned(), ads: None, listen: address };
    let side = Arc::new(QuerySide::open(&side).map_err(std::io::Error::other)?);
    std::thread::spawn(move || {
        // It serves as long as the process lives.
        let (_stop, stopped) = oneshot::channel();
        runtime.block_on(tollgate_global::serve(store, side, Page::default(), listener, stopped))
    });
    let clients = (0..CONNECTIONS).map(|client| {
        let (asked, mut connection) = (asked.clone(), BufReader::new(TcpStream::connect(address)?));
        connection.get_ref().set_nodelay(true)?;
        Ok(std::thread::spawn(move || {
            asked.each(client, CONNECTIONS, |ad| get(&mut connection, address, ad).expect("the API answers"))
        }))
    });
    clients.collect()
}

fn get(connection: &mut BufReader<TcpStream>, address: SocketAddr, ad: &str) -> std::io::Result<()> {
    let (from, to) = (START_MS - DAY_MS, START_MS + DAY_MS);
    let asking = format!("GET /v1/ads/{ad}/aggregated_count?from={from}&to={to} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    connection.get_mut().write_all(asking.as_bytes())?;
    let (mut line, mut length) = (String::new(), 0);
    connection.read_line(&mut line)?;
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    while line != "\r\n" {
        line.clear();
        connection.read_line(&mut line)?;
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    assert!(body.starts_with(b"{\"ad_id\":\"ad_"), "{}", String::from_utf8_lossy(&body));
    Ok(())
}

fn delivery(edge: u64, second: u64, count: u64, rows: u64, random: &mut u64) -> Delivery {
    let edge_id = format!("edge-{edge}");
    let now_ms = START_MS + second as i64 * 1_000;
    let partials: Vec<Partial> = (0..count)
        .map(|index| {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            let row = *random % rows;
            Partial {
                format_version: 1,
                edge_id: edge_id.clone(),
                log_uuid: vec![edge as u8; 16],
                txn_seq: second,
                index: index as u32,
                pane_start_ms: now_ms.div_euclid(10_000) * 10_000,
                ad_id: format!("ad_{}", row / 4),
                campaign_id: format!("campaign_{}", row / 4 % 500),
                advertiser_id: format!("advertiser_{}", row / 4 % 100),
                region: REGIONS[row as usize % 4].into(),
                device: 1,
                agent: 1,
                class: 0,
                rules: 1,
                clicks: 2,
                users: Users::bytes_of([*random, *random >> 9].into_iter()),
                watermark_ms: now_ms - 5_000,
            }
        })
        .collect();
    let clicks = 2 * count;
    let (from_lsn, to_lsn) = ((second - 1) * clicks, second * clicks);
    let range = LogRange { log_uuid: vec![edge as u8; 16], from_lsn, to_lsn, clicks, clicks_total: to_lsn };
    let end = EndRecord {
        format_version: 1,
        edge_id,
        txn_seq: second,
        partials: count as u32,
        crc: crc_of(&partials),
        ranges: vec![range],
        watermark_ms: now_ms - 5_000,
        horizon_ms: now_ms - 600_000,
        ..EndRecord::default()
    };
    let entries = Entries::of(&partials).expect("each can be a row");
    Delivery { entries, end, place: Place { partition: 0, offset: (second * EDGES + edge) as i64 } }
}

/// CPU that this thread has used.
fn thread_cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}

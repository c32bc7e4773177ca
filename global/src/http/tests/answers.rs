//! Where answers are made, and what of them stands where.

use super::*;
use crate::http::answers::CountAnswer;
use crate::http::finished::Finished;
use crate::question::{Filter, GroupBy, Question, Subject};
use crate::store::Options;
use crate::window::{DAY_MS, Retention, Window};

const ROWS: usize = 10_000;

/// What a thread of this process had of a CPU, ever.
fn cpu_ns(thread: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(thread.join("schedstat")).expect("the kernel tells");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("nanoseconds")
}

fn this_thread() -> std::path::PathBuf {
    std::path::Path::new("/proc").join(std::fs::read_link("/proc/thread-self").expect("of this process"))
}

/// The port has one thread: what it does for one client, all others wait for, and so do live states.
#[test]
fn pages_are_made_on_other_threads_than_the_ports() {
    let (store, folder) = filled();
    let of = |at: usize| partial(&format!("ad {at}"), START_MS, 0, 100, &[at as u64, at as u64 + 1, at as u64 + 2]);
    store.commit(&transaction("e", 2, START_MS, (0..ROWS).map(of).collect())).expect("commit");
    let question = Question {
        subject: Subject::All,
        span: Window { start_ms: START_MS, end_ms: START_MS + MINUTE_MS },
        granularity: None,
        group_by: Some(GroupBy::Ad),
        filter: Filter::default(),
        after: None,
        rows_max: ROWS,
    };
    let snapshot = store.snapshot().expect("a snapshot");
    let counts = snapshot.count(&question).expect("counted");
    let before = cpu_ns(&this_thread());
    let made = Finished::json(&snapshot, &CountAnswer::of(&question, &counts, None, None));
    let making_ns = cpu_ns(&this_thread()) - before;
    drop((made, snapshot));

    let (tell, told) = std::sync::mpsc::channel();
    let (_ending, ended) = watch::channel(());
    let router =
        crate::http::routes(shared_of(&store, &Arc::new(Live::new(ended)))).layer(axum::Extension(Access::All));
    let served = serve_with(store, folder, move |listener, stopped: oneshot::Receiver<()>| async move {
        tell.send(this_thread()).expect("somebody waits");
        let stopped = async {
            let _ = stopped.await;
        };
        serve_until(router, listener, stopped, PortLimits::QUERY).await
    });
    let port = told.recv().expect("it runs");
    served.get("/v1/totals?from=1712908800&to=1712908860");
    let before = cpu_ns(&port);
    for format in ["json", "csv"] {
        let path = format!("/v1/totals?from=1712908800&to=1712908860&group_by=ad&limit={ROWS}&format={format}");
        let reply = served.request("GET", &path, "");
        assert!(reply.status == 200 && reply.text.len() > 100 * ROWS / 2, "{}", reply.head);
    }
    let port_ns = cpu_ns(&port) - before;
    assert!(port_ns < making_ns / 2, "the port's thread took {port_ns} ns, making one page takes {making_ns} ns");
}

/// Fields that move with every commit come last: an ETag is of what is before them.
#[test]
fn the_standing_comes_last() {
    let served = served();
    for path in ["totals?group_by=ad&", "ads/a/invalid?", "ads/a/history?"] {
        let reply = served.request("GET", &format!("/v1/{path}from=1712908800&to=1712908820"), "");
        let at = reply.text.find(",\"as_of\":").expect("it is there");
        let standing: Value = serde_json::from_str(&format!("{{{}", &reply.text[at + 1..])).expect("the rest");
        assert_eq!(standing.as_object().map(|fields| fields.len()), Some(4), "{}", reply.text);
    }
}

/// A bill that is too small says nothing of it; so the span's beginning is refused, whatever is asked.
#[test]
fn a_span_that_begins_before_what_is_kept_names_it() {
    let folder = tempfile::tempdir().expect("folder");
    let retention = Retention { panes_ms: HOUR_MS, minutes_ms: DAY_MS, hours_ms: 32 * DAY_MS };
    let options = Options { retention, ..Options::default() };
    let store = Arc::new(Store::open_with(&folder.path().join("store"), options).expect("a new store"));
    for (seq, day) in (1..).zip([0, 60, 100]) {
        let at = START_MS + day * DAY_MS;
        store.commit(&transaction("e", seq, at, vec![partial("ad_1", at, 0, 1, &[])])).expect("commit");
    }
    let (_ending, ended) = watch::channel(());
    let router =
        crate::http::routes(shared_of(&store, &Arc::new(Live::new(ended)))).layer(axum::Extension(Access::All));
    let served = serve_with(store, folder, move |listener, stopped: oneshot::Receiver<()>| async move {
        let stopped = async {
            let _ = stopped.await;
        };
        serve_until(router, listener, stopped, PortLimits::QUERY).await
    });
    let (ad, all) = ("/v1/ads/ad_1/aggregated_count?from=0", "/v1/totals?from=1712908800");
    assert_eq!((&served.get(ad)["gross"], &served.get(all)["gross"]), (&json!(3), &json!(3)), "nothing is pruned");
    while served.store.keep_up(START_MS + 100 * DAY_MS).expect("kept") {}
    // Buckets of 32 days since 1970.
    let kept = "2024-05-29T00:00:00Z";
    let day = format!("{all}&to=1720000000&granularity=1d&format=csv");
    for path in [ad, all, "/v1/ads/ad_1/invalid?from=0", &day, "/v1/totals?to=1712908900"] {
        let reply = served.request("GET", path, "");
        assert_eq!((reply.status, &reply.body["parameter"]), (400, &json!("from")), "{path}: {}", reply.text);
        for said in [&reply.body["allowed"], &reply.body["detail"]] {
            assert!(said.as_str().is_some_and(|said| said.contains(kept)), "{path}: {}", reply.text);
        }
    }
    assert_eq!(served.get(&format!("/v1/totals?from={kept}"))["gross"], json!(2));
    // Corrections go with the minutes that they are of: a history without them would say that there were none.
    let minutes_kept = "2024-06-11T00:00:00Z";
    let reply = served.request("GET", "/v1/ads/ad_1/history?from=2024-06-10T23:59:00Z", "");
    assert_eq!((reply.status, &reply.body["parameter"]), (400, &json!("from")), "{}", reply.text);
    assert!(reply.body["allowed"].as_str().is_some_and(|said| said.contains(minutes_kept)), "{}", reply.text);
    assert_eq!(served.get(&format!("/v1/ads/ad_1/history?from={minutes_kept}"))["corrections"], json!([]));
}

/// Where `to` is not said it is the clock's: on the second page that of the first, however late it is asked for.
#[test]
fn a_page_may_be_asked_for_later_than_the_one_before_it() {
    let served = served();
    served.commits(2, START_MS + HOUR_MS, vec![]);
    for (seq, at) in (3..).zip([0, 2 * MINUTE_MS]) {
        served.commits(seq, START_MS + HOUR_MS, vec![partial("ad 1", START_MS + at, 0, 1, &[])]);
    }
    for path in ["/v1/totals?group_by=ad&limit=1", "/v1/ads/ad%201/history?limit=1"] {
        let first = served.get(&format!("{path}&from=1712908800"));
        let cursor = first["next_cursor"].as_str().expect("more than one");
        // Behind the version, the question and the beginning.
        let to_ms = i64::from_str_radix(&cursor[34..50], 16).expect("a time");
        let of_before = |ms: i64| format!("{}{:016x}{}", &cursor[..34], to_ms - ms, &cursor[50..]);
        let second = served.get(&format!("{path}&from=1712908800&cursor={}", of_before(10 * MINUTE_MS)));
        assert_ne!(second["to"], first["to"], "{path}: its own");
        for other in ["from=1712908860", "from=1712908800&to=1712912400"] {
            let reply = served.request("GET", &format!("{path}&{other}&cursor={cursor}"), "");
            assert_eq!((reply.status, &reply.body["parameter"]), (400, &json!("cursor")), "{path} {other}");
        }
    }
}

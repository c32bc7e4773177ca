//! Where answers are made, and what of them stands where.

use super::*;
use crate::http::answers::CountAnswer;
use crate::http::finished::Finished;
use crate::question::{Filter, GroupBy, Question, Subject};
use crate::window::Window;

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

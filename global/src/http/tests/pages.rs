//! Answers that are too long for one page, and the cursors between them.

use super::*;

/// Page by page the same rows come as at once, by cursor or by the field Link; also where the span was not said.
#[test]
fn pages_add_up_to_the_whole() {
    let served = served();
    let now = wall_ms();
    let now = now - now % MINUTE_MS;
    let of = |at: i64| partial(&format!("ad {at:02}"), now - (at % 5 + 1) * MINUTE_MS, 0, 1 + at as u64, &[]);
    served.commits(2, now, (0..25).map(of).collect());
    for path in ["/v1/totals?group_by=ad&granularity=1m", "/v1/totals?group_by=class&granularity=1m"] {
        let first = served.get(&format!("{path}&limit=3"));
        let time = |name: &str| first[name].as_str().expect("a time").to_owned();
        let whole = served.get(&format!("{path}&from={}&to={}", time("from"), time("to")));
        let cursor = first["next_cursor"].as_str().expect("more than three");
        let mut rows = first["rows"].as_array().expect("rows").clone();
        let mut next = Some(format!("{path}&limit=3&cursor={cursor}"));
        while let Some(path) = next.take() {
            let reply = served.request("GET", &path, "");
            assert_eq!(reply.status, 200, "{}", reply.text);
            let page = reply.body["rows"].as_array().expect("rows");
            assert!(page.len() <= 3);
            rows.extend(page.iter().cloned());
            assert_eq!(
                fields(&reply.body, &["from", "to"]),
                fields(&first, &["from", "to"]),
                "all pages are of one span"
            );
            let link = reply
                .field("link")
                .map(|link| link.trim_start_matches('<').split_once('>').expect("a target").0.to_owned());
            assert_eq!(link.is_some(), reply.body.get("next_cursor").is_some());
            next = link;
        }
        assert!(rows.len() > 3);
        assert_eq!(json!(rows), whole["rows"], "{path}");
    }
}

/// It is not signed: who writes another span into it gets no more than by asking.
#[test]
fn a_cursor_with_another_span_is_bounded_like_any_span() {
    let served = served();
    let path = "/v1/totals?granularity=1m&group_by=ad";
    let first = served.get(&format!("{path}&from=1712908800&to=1712908860&limit=1"));
    let cursor = first["next_cursor"].as_str().expect("two ads");
    // Behind the version and the question.
    let spanning = |from_ms: i64, to_ms: i64| format!("{}{from_ms:016x}{to_ms:016x}{}", &cursor[..18], &cursor[50..]);
    assert_eq!(
        served.get(&format!("{path}&cursor={}", spanning(START_MS, START_MS + 60_000)))["rows"][0]["ad_id"],
        json!("ad_2")
    );
    for (from_ms, to_ms) in [(0, START_MS), (0, i64::MAX), (i64::MIN, i64::MAX), (START_MS, START_MS)] {
        let reply = served.request("GET", &format!("{path}&cursor={}", spanning(from_ms, to_ms)), "");
        assert_eq!((reply.status, &reply.body["parameter"]), (400, &json!("cursor")), "{from_ms} to {to_ms}");
    }
}

#[test]
fn a_cursor_is_of_one_question() {
    let served = served();
    let span = "from=1712908800&to=1712908820";
    let first = served.get(&format!("/v1/totals?{span}&group_by=ad&limit=1"));
    let cursor = first["next_cursor"].as_str().expect("two ads");
    assert_eq!(
        served.get(&format!("/v1/totals?{span}&group_by=ad&cursor={cursor}"))["rows"][0]["ad_id"],
        json!("ad_2")
    );
    assert_eq!(served.get(&format!("/v1/totals?group_by=ad&cursor={cursor}"))["from"], first["from"]);
    for other in [
        format!("/v1/totals?{span}&group_by=class&cursor={cursor}"),
        format!("/v1/totals?{span}&group_by=ad&filter_region=DE&cursor={cursor}"),
        format!("/v1/totals?from=1712908800&to=1712908830&group_by=ad&cursor={cursor}"),
        format!("/v1/campaigns/c1/aggregated_count?{span}&group_by=ad&cursor={cursor}"),
        format!("/v1/ads/ad_1/history?{span}&cursor={cursor}"),
        format!("/v1/totals?{span}&group_by=ad&cursor=0{cursor}"),
    ] {
        let reply = served.request("GET", &other, "");
        assert_eq!((reply.status, &reply.body["parameter"]), (400, &json!("cursor")), "{other}");
    }
}

#[test]
fn history_has_pages() {
    let served = served();
    served.commits(2, START_MS + HOUR_MS, vec![]);
    for at in 0..5 {
        let late = vec![partial("ad 1", START_MS + at / 2 * MINUTE_MS, 0, 1, &[])];
        served.commits(3 + at as u64, START_MS + HOUR_MS, late);
    }
    let path = "/v1/ads/ad%201/history?from=1712908800&to=1712912400&limit=3";
    let first = served.get(path);
    assert_eq!(first["corrections"].as_array().map(Vec::len), Some(2), "of whole minutes");
    let cursor = first["next_cursor"].as_str().expect("more");
    let second = served.get(&format!("{path}&cursor={cursor}"));
    assert_eq!(second["corrections"].as_array().map(Vec::len), Some(3));
    assert_eq!((second.get("next_cursor"), &second["from"]), (None, &first["from"]));
    let unsaid = served.get(&format!("/v1/ads/ad%201/history?cursor={cursor}"));
    assert_eq!(unsaid["corrections"], second["corrections"], "it says its span itself");
    for other in ["from=1712908800&to=1712908920", "from=1712908860&to=1712912400", "to=1712912460"] {
        let reply = served.request("GET", &format!("/v1/ads/ad%201/history?{other}&cursor={cursor}"), "");
        assert_eq!((reply.status, &reply.body["parameter"]), (400, &json!("cursor")), "{other}");
    }
}

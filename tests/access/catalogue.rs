//! The ad catalogue of a running edge: in force at the start, changed, broken, and through a restart.

use std::path::Path;

use crate::server::{EXPORTS, Server, tollgate, wait_until};
use crate::{accepted, ask, click, gross, token};

fn campaign(server: &Server, id: &str) -> u64 {
    gross(server.query, &format!("/v1/campaigns/{id}/aggregated_count"), None)
}

fn metric(server: &Server, line: &str) -> bool {
    ask(server.admin, "/metrics", None).body.contains(&format!("{line}\n"))
}

fn started(data_dir: &Path, ads: &str) -> Server {
    Server::start(data_dir, &[&EXPORTS[..], &["--ads", ads, "--keep-minutes", "45d"]].concat())
}

#[test]
fn campaigns_follow_the_catalogue_while_it_changes_and_breaks() {
    let folder = tempfile::tempdir().expect("a directory");
    let (data_dir, path) = (folder.path().join("data"), folder.path().join("ads.csv"));
    let ads = path.to_str().expect("UTF-8");
    let says = |text: &str| {
        let aside = folder.path().join("ads.new");
        std::fs::write(&aside, text).expect("written");
        std::fs::rename(&aside, &path).expect("put in place");
    };
    says("ad_id,campaign_id,advertiser_id\ntold,c9,x9\nsilent,c1,x1\n");
    let server = started(&data_dir, ads);
    let clicks = [("told", "c1", "x1", 2), ("silent", "", "", 3), ("unlisted", "c1", "x1", 5)];
    let clicks = clicks
        .into_iter()
        .flat_map(|(ad, campaign, advertiser, times)| (0..times).map(move |n| (ad, campaign, advertiser, n)));
    let clicks = clicks.enumerate().map(|(n, (ad, campaign, advertiser, _))| click(n as u64, ad, campaign, advertiser));
    accepted(server.clicks, &clicks.collect::<Vec<_>>());
    server.wait_for_gross(10);
    let counts = |server: &Server| ["c1", "c2", "c9"].map(|id| campaign(server, id));
    assert_eq!(
        counts(&server),
        [8, 0, 2],
        "what the click left out is filled in, what it says otherwise does not count"
    );
    assert!(metric(&server, "tollgate_global_catalogue_mismatch_total{kind=\"campaign\"} 2"));
    assert!(metric(&server, "tollgate_global_catalogue_mismatch_total{kind=\"advertiser\"} 2"));

    says("ad_id,campaign_id\nsilent,c2\n");
    wait_until("the change is in force", || campaign(&server, "c2") == 3);
    assert_eq!(counts(&server), [7, 3, 0]);
    let methodology = ask(server.query, "/v1/methodology", None).json();
    let version = methodology["catalogue"]["version"].clone();
    let kept_ms = [0, 1, 2].map(|grain| methodology["retention"][grain]["kept_ms"].as_i64());
    assert_eq!(kept_ms, [2, 45, 731].map(|days| Some(days * 86_400_000)), "as its settings say, and by default");
    assert!(metric(&server, &format!("tollgate_global_catalogue_info{{version={version}}} 1")), "{version}");

    says("ad_id,campaign_id\nsilent,c1\nsilent,c3\n");
    wait_until("the break is noticed", || metric(&server, "tollgate_global_catalogue_broken 1"));
    assert_eq!(counts(&server), [7, 3, 0]);
    let errors = std::fs::read_to_string(data_dir.with_extension("stderr")).expect("its lines");
    assert!(errors.contains("line 3: ad \"silent\" stands here with other owners"), "{errors}");
    // A token follows the catalogue as campaigns do.
    let of_c2 = token(&data_dir, &["--campaign", "c2"]);
    wait_until("it is known", || ask(server.query, "/v1/totals", None).status == 401);
    assert_eq!(gross(server.query, "/v1/totals", Some(&of_c2)), 3);
    server.stop();

    let (code, text) = tollgate(&data_dir, &["check", "--ads", ads]);
    assert!(code == Some(64) && text.contains("line 3"), "{text}");
    let server = started(&data_dir, ads);
    assert_eq!(gross(server.query, "/v1/totals", Some(&of_c2)), 3, "the last good one is in force");
    says("ad_id,campaign_id\ntold,c2\n");
    wait_until("it is mended", || gross(server.query, "/v1/totals", Some(&of_c2)) == 2);
    assert!(metric(&server, "tollgate_global_catalogue_broken 0"));
    server.stop();
}

#[test]
fn a_catalogue_that_never_was_good_is_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let data_dir = folder.path().join("data");
    let ended = Server::spawn(&data_dir, &["--ads", "/nowhere/ads.csv"]).ended_within(crate::server::PATIENCE);
    assert!(ended.code == Some(64) && ended.errors.contains("/nowhere/ads.csv"), "{ended:?}");
    let made = std::fs::read_dir(&data_dir).map_or(0, Iterator::count);
    assert_eq!(made, 0, "a start that is refused makes nothing in it");
    let kafka = ["check", "--sink", "kafka", "--kafka-brokers", "127.0.0.1:1", "--edge-id", "e", "--ads", "a.csv"];
    let (code, text) = tollgate(&data_dir, &kafka);
    assert!(code == Some(64) && text.contains("tollgate global"), "{text}");
}

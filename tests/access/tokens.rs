//! Tokens, made and revoked beside a running edge.

use std::io::Read as _;
use std::path::Path;

use rustix::fs::{Mode, stat};

use crate::server::{EXPORTS, Server, binary, now_ms, status, tollgate, wait_until};
use crate::{Reply, accepted, ask, click, gross, send, token};

/// An edge with five clicks of campaign `a`, of advertiser `x`, and seven of campaign `b`.
fn filled(data_dir: &Path) -> Server {
    let server = Server::start(data_dir, &EXPORTS);
    let clicks = (0..12).map(|n| if n < 5 { click(n, "ad_a", "a", "x") } else { click(n, "ad_b", "b", "y") });
    accepted(server.clicks, &clicks.collect::<Vec<_>>());
    server.wait_for_gross(12);
    server
}

/// Every route that knows counts, for an ad, a campaign, an advertiser.
fn routes(ad_id: &str, campaign_id: &str, advertiser_id: &str) -> Vec<String> {
    let now_s = now_ms() / 1000;
    let span = format!("from={}&to={}", now_s - 3_000, now_s + 600);
    let spans =
        ["aggregated_count", "aggregated_count?granularity=1m&group_by=region&", "invalid", "history"].map(|rest| {
            let between = if rest.contains('?') { "" } else { "?" };
            format!("/v1/ads/{ad_id}/{rest}{between}{span}")
        });
    let others = [
        format!("/v1/campaigns/{campaign_id}/aggregated_count?group_by=ad&{span}"),
        format!("/v1/advertisers/{advertiser_id}/aggregated_count?group_by=ad&{span}"),
    ];
    spans.into_iter().chain(others).collect()
}

/// What is answered, without when it was and without the names that were asked for.
fn told(reply: &Reply, names: [&str; 3]) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let mut answer = reply.json();
    let fields = answer.as_object_mut().expect("an object");
    fields.retain(|name, _| !["as_of", "watermark", "complete_up_to", "final_up_to"].contains(&name.as_str()));
    names.into_iter().fold(answer.to_string(), |text, name| text.replace(&format!("\"{name}\""), "\"NAME\""))
}

#[test]
fn a_token_sees_its_own_on_every_route_until_it_is_revoked() {
    let folder = tempfile::tempdir().expect("a directory");
    let data_dir = folder.path().join("data");
    let server = filled(&data_dir);
    assert_eq!(gross(server.query, "/v1/totals", None), 12, "the loopback is open while there is no token");
    let a = token(&data_dir, &["--campaign", "a", "--name", "of a"]);
    let b = token(&data_dir, &["--advertiser", "y"]);
    let all = token(&data_dir, &["--all", "--rate", "1000/s"]);
    wait_until("a token is needed", || ask(server.query, "/v1/totals", None).status == 401);
    wait_until("all are known", || ask(server.query, "/v1/totals", Some(&all)).status == 200);
    let refused = ask(server.query, "/v1/totals", None);
    assert!(
        refused.head.contains("application/problem+json") && refused.head.contains("www-authenticate: Bearer"),
        "{}",
        refused.head
    );

    let seen = |token: &str| {
        ["/v1/totals", "/v1/ads/ad_a/aggregated_count", "/v1/ads/ad_b/aggregated_count"]
            .map(|path| gross(server.query, path, Some(token)))
    };
    assert_eq!([seen(&a), seen(&b), seen(&all)], [[5, 5, 0], [7, 0, 7], [12, 5, 7]]);
    // What is of others reads as what is not there, to the byte; what is its own does not.
    for (token, own, other) in
        [(&a, ["ad_a", "a", "x"], ["ad_b", "b", "y"]), (&b, ["ad_b", "b", "y"], ["ad_a", "a", "x"])]
    {
        let (of_own, of_other) = (routes(own[0], own[1], own[2]), routes(other[0], other[1], other[2]));
        for ((own_path, path), none) in of_own.iter().zip(&of_other).zip(&routes("none", "none", "none")) {
            let nothing = told(&ask(server.query, none, Some(token)), ["none"; 3]);
            assert_eq!(told(&ask(server.query, path, Some(token)), other), nothing, "{path}");
            if own_path.contains("count") {
                assert_ne!(told(&ask(server.query, own_path, Some(token)), own), nothing, "{own_path}");
            }
        }
    }
    ranked_and_live(&server, &a, &all);
    // The commands of the host's own people need no token.
    assert_eq!(status(server.admin, &[]).0, Some(0));

    let (code, text) = tollgate(&data_dir, &["token", "list"]);
    assert!(
        code == Some(0) && text.contains("of a") && text.contains("campaign a") && text.contains("everything"),
        "{text}"
    );
    assert_eq!(tollgate(&data_dir, &["token", "revoke", "of a"]).0, Some(0));
    wait_until("it is revoked", || ask(server.query, "/v1/totals", Some(&a)).status == 401);
    assert_eq!(gross(server.query, "/v1/totals", Some(&b)), 7);
    assert!(tollgate(&data_dir, &["token", "list"]).1.contains("REVOKED"));
    let text = ask(server.admin, "/metrics", None).body;
    assert!(text.contains("tollgate_global_tokens{state=\"revoked\"} 1\n"), "{text}");
    server.stop();
    // A token is nowhere but with who was given it.
    nowhere(folder.path(), &[&a, &b, &all]);
    assert_eq!(
        stat(data_dir.join("tokens.json")).expect("it is there").st_mode & 0o777,
        Mode::RUSR.union(Mode::WUSR).bits()
    );
    let server = Server::start(&data_dir, &EXPORTS);
    assert_eq!(
        (ask(server.query, "/v1/totals", Some(&a)).status, gross(server.query, "/v1/totals", Some(&b))),
        (401, 7)
    );
}

/// The ranking, the edges and the live numbers; as far as this moment lets the ranking have a closed window.
fn ranked_and_live(server: &Server, a: &str, all: &str) {
    let ranked = |token: &str| {
        let reply = ask(server.query, "/v1/ads/top_k?window_minutes=5&by=gross", Some(token));
        let ads = if reply.status == 200 { reply.json()["top_ads"].clone() } else { serde_json::Value::Null };
        ads.as_array()
            .into_iter()
            .flatten()
            .map(|ad| ad["ad_id"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    wait_until("the panes are closed and ranked", || ranked(all).len() == 2);
    assert_eq!(ranked(a), ["ad_a"]);
    let edge = |token: &str| ask(server.query, "/v1/edges", Some(token)).json()["edges"][0].clone();
    assert!(edge(all)["clicks"] == 12 && edge(a)["clicks"].is_null() && edge(a)["edge_id"] == "edge", "{}", edge(a));
    let first = |token: &str| {
        let mut stream = std::net::TcpStream::connect(server.query).expect("it listens");
        stream.set_read_timeout(Some(crate::server::PATIENCE)).expect("a socket");
        let head = format!("GET /v1/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("it reads");
        let (mut text, mut part) = (String::new(), [0; 4096]);
        while !text.contains("\"now\"") || !text.ends_with("\n\n") && !text.ends_with("\n\n\r\n") {
            let read = stream.read(&mut part).expect("it tells");
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        text
    };
    assert!(first(all).contains("ad_b") && first(all).contains("\"ledger\""), "{}", first(all));
    let told = first(a);
    assert!(told.contains("ad_a") && !told.contains("ad_b") && !told.contains("\"ledger\""), "{told}");
}

/// No file below the folder has any of the tokens.
fn nowhere(folder: &Path, tokens: &[&str]) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            nowhere(&path, tokens);
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        for token in tokens {
            let digits = &token.as_bytes()[4..];
            assert!(!bytes.windows(digits.len()).any(|part| part == digits), "{}", path.display());
        }
    }
}

#[test]
fn a_token_that_asks_too_fast_is_told_when_to_come_again() {
    let folder = tempfile::tempdir().expect("a directory");
    let data_dir = folder.path().join("data");
    let slow = token(&data_dir, &["--all", "--rate", "1"]);
    let server = Server::start(&data_dir, &EXPORTS);
    let replies: Vec<Reply> = (0..13).map(|_| ask(server.query, "/v1/totals", Some(&slow))).collect();
    let refused = replies.iter().find(|reply| reply.status == 429).expect("one is too many");
    assert!(
        refused.head.contains("retry-after: 1") && refused.head.contains("application/problem+json"),
        "{}",
        refused.head
    );
    assert!(replies.iter().filter(|reply| reply.status == 200).count() >= 10);
    wait_until("it may ask again", || ask(server.query, "/v1/totals", Some(&slow)).status == 200);
}

#[test]
fn a_browser_trades_its_token_for_a_cookie() {
    let folder = tempfile::tempdir().expect("a directory");
    let data_dir = folder.path().join("data");
    let server = filled(&data_dir);
    let a = token(&data_dir, &["--campaign", "a"]);
    wait_until("a token is needed", || ask(server.query, "/v1/totals", None).status == 401);
    let fields = format!("Content-Type: application/json\r\nOrigin: http://{}\r\n", server.query);
    let reply = send(server.query, "POST", "/v1/session", &fields, &format!("{{\"token\":\"{a}\"}}"));
    let cookie = reply.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(reply.status == 200 && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{}", reply.head);
    let (pair, _) = cookie.split_once(';').expect("attributes");
    let totals = send(server.query, "GET", "/v1/totals", &format!("Cookie: {pair}\r\n"), "");
    assert_eq!((totals.status, totals.json()["gross"].as_u64()), (200, Some(5)));
    let elsewhere = "Content-Type: application/json\r\nOrigin: https://elsewhere\r\n";
    assert_eq!(send(server.query, "POST", "/v1/session", elsewhere, &format!("{{\"token\":\"{a}\"}}")).status, 403);
}

/// Nothing is ever opened to everybody by oversight; the line says how it is meant.
#[test]
fn a_port_beyond_the_loopback_needs_a_token() {
    let folder = tempfile::tempdir().expect("a directory");
    let data_dir = folder.path().join("data");
    let open = ["--query-listen", "0.0.0.0:0"];
    let ended = Server::spawn(&data_dir, &open).ended_within(crate::server::PATIENCE);
    assert!(ended.code == Some(64) && ended.errors.contains("tollgate token create"), "{ended:?}");
    assert!(ended.errors.contains(" --all --new"), "nothing was started on it yet: {ended:?}");
    let made = std::fs::read_dir(&data_dir).map_or(0, Iterator::count);
    assert_eq!(made, 0, "a start that is refused makes nothing in it");
    let global = ["global", "--kafka-brokers", "127.0.0.1:1"];
    for command in [&["check"][..], &["check", "--for", "up"], &global] {
        let (code, text) = tollgate(&data_dir, &[command, &open].concat());
        assert!(
            code == Some(64) && text.contains("tollgate token create") && text.contains("0.0.0.0:0"),
            "{command:?}: {text}"
        );
    }
    token(&data_dir, &["--all"]);
    // It starts nothing, and would.
    let (code, text) = tollgate(&data_dir, &["check", "--query-listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(0), "{text}");
    std::fs::write(data_dir.join("tokens.json"), "{").expect("written");
    let ended = Server::spawn(&data_dir, &[]).ended_within(crate::server::PATIENCE);
    assert!(ended.code == Some(73) && ended.errors.contains("tokens.json"), "{ended:?}");
    assert_eq!(tollgate(&data_dir, &["token", "create", "--all"]).0, Some(73), "nothing is written over it");
}

/// `tollgate global` lets in as an edge does, and tells of the same files; no broker is needed for that.
#[test]
fn the_global_tier_asks_for_tokens_too() {
    let folder = tempfile::tempdir().expect("a directory");
    let (data_dir, ads) = (folder.path().join("global"), folder.path().join("ads.csv"));
    std::fs::write(&ads, "ad_id,campaign_id\nad,c\n").expect("written");
    let all = token(&data_dir, &["--all"]);
    let mut command = std::process::Command::new(binary());
    command.args([
        "global",
        "--kafka-brokers",
        "127.0.0.1:1",
        "--query-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    command.arg("--ads").arg(&ads);
    let mut server = Server::spawn_command(command, &data_dir);
    assert!(server.ready_within(crate::server::PATIENCE), "no ready line");
    let statuses =
        [None, Some(&all[1..]), Some(all.as_str())].map(|token| ask(server.query, "/v1/totals", token).status);
    assert_eq!(statuses, [401, 401, 200]);
    let text = ask(server.admin, "/metrics", None).body;
    for line in ["tollgate_global_catalogue_ads 1", "tollgate_global_tokens{state=\"valid\"} 1"] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    std::fs::write(&ads, "ad_id,campaign_id\nad,c\nad,d\n").expect("written");
    wait_until("the break is told of", || {
        ask(server.admin, "/readyz", None).body.contains("--ads file cannot be used")
    });
    assert_eq!(tollgate(&data_dir, &["token", "revoke", &tokens_of(&data_dir)[0]]).0, Some(0));
    wait_until("it is revoked", || ask(server.query, "/v1/totals", Some(&all)).status == 401);
    std::fs::write(data_dir.join("tokens.json"), "{").expect("written");
    let broken = || ask(server.admin, "/metrics", None).body.contains("\ntollgate_global_tokens_broken 1\n");
    wait_until("the break is told of", broken);
    assert_eq!(ask(server.query, "/v1/totals", Some(&all)).status, 401, "what was revoked stays so");
}

/// What one of them keeps would be taken for the other's.
#[test]
fn an_edge_and_the_global_tier_have_a_directory_each() {
    let folder = tempfile::tempdir().expect("a directory");
    let (of_global, of_edge) = (folder.path().join("global"), folder.path().join("edge"));
    std::fs::create_dir(&of_global).expect("made");
    std::fs::write(of_global.join("global.redb"), "").expect("written");
    let ended = Server::spawn(&of_global, &[]).ended_within(crate::server::PATIENCE);
    assert!(ended.code == Some(73) && ended.errors.contains("global.redb lies in it"), "{ended:?}");
    assert_eq!(std::fs::read_dir(&of_global).expect("a folder").count(), 1, "nothing was made there");
    Server::start(&of_edge, &[]).stop();
    let mut command = std::process::Command::new(binary());
    command.args(["global", "--kafka-brokers", "127.0.0.1:1"]);
    command.args(["--query-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let ended = Server::spawn_command(command, &of_edge).ended_within(crate::server::PATIENCE);
    assert!(ended.code == Some(73) && ended.errors.contains("identity.toml lies in it"), "{ended:?}");
    assert!(!of_edge.join("global.redb").exists());
}

/// The ids, as a program reads them.
fn tokens_of(data_dir: &Path) -> Vec<String> {
    let (code, text) = tollgate(data_dir, &["token", "list", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    list["tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|token| token["id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

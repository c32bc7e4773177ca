//! What the edge promises of HTTP/1.1, sentence by sentence: every case whole, cut at every byte, and at random.

use crate::harness::{Driver, End, Transcript, check_any_bytes, limits, replies, run, settled};
use proptest::prelude::*;
use tollgate::config::HttpConfig;
use tollgate::net::media::BodyFormat;

const CLICK: &str = r#"{"ad_id":"ad_1"}"#;

/// A request that is taken as it stands, followed in the tables by what is tried.
fn good(body: &str) -> String {
    format!(
        "POST /v1/clicks HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request with these lines in place of the framing, then this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /v1/clicks HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{fields}\r\n{body}")
}

/// `name | bytes | statuses | whether nothing more is read`
struct Case {
    name: &'static str,
    bytes: String,
    statuses: &'static [u16],
    ends: bool,
}

fn case(name: &'static str, bytes: impl Into<String>, statuses: &'static [u16], ends: bool) -> Case {
    Case { name, bytes: bytes.into(), statuses, ends }
}

/// Refused once, answered once, and the connection ends: what follows is not read, or it would be answered too.
fn fatal(name: &'static str, bytes: impl Into<String>, status: &'static [u16]) -> Case {
    case(name, bytes.into() + &good(CLICK), status, true)
}

/// Refused, and the request after it is taken.
fn survived(name: &'static str, bytes: impl Into<String>, statuses: &'static [u16]) -> Case {
    case(name, bytes.into() + &good(CLICK), statuses, false)
}

fn taken() -> Vec<Case> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut cases = vec![
        case("one", good(CLICK), &[202], false),
        case("two pipelined", good(CLICK) + &good("[]"), &[202, 202], false),
        case("an empty line before a request", good(CLICK) + "\r\n" + &good(CLICK), &[202, 202], false),
        case("no body", good(""), &[202], false),
        case("same head, longer body", good("{}") + &good(CLICK) + &good("{}"), &[202, 202, 202], false),
        case("leading zeros in a length", post("Content-Length: 0002\r\n", "{}") + &good("{}"), &[202, 202], false),
        case("no blank after the colon", post("Content-Length:2\r\n", "{}") + &good("{}"), &[202, 202], false),
        case("blanks after a value", post("Content-Length: 2 \t \r\n", "{}") + &good("{}"), &[202, 202], false),
        case("chunked", post(chunked, "5\r\nabcde\r\nA\r\n0123456789\r\n0\r\n\r\n") + &good("{}"), &[202, 202], false),
        case("a chunked body of nothing", post(chunked, "0\r\n\r\n") + &good("{}"), &[202, 202], false),
        case(
            "chunk extensions",
            post(chunked, "2;a=b ; c=\"d\"\r\n{}\r\n0 ;x\r\n\r\n") + &good("{}"),
            &[202, 202],
            false,
        ),
        case(
            "leading zeros in a chunk size",
            post(chunked, "0002\r\n{}\r\n000\r\n\r\n") + &good("{}"),
            &[202, 202],
            false,
        ),
        case(
            "trailers",
            post(chunked, "2\r\n{}\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n") + &good("{}"),
            &[202, 202],
            false,
        ),
        case("the coding in capitals", post("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), &[202], false),
        case("close", post("Connection: keep-alive, Close\r\nContent-Length: 2\r\n", "{}") + &good("{}"), &[202], true),
        case(
            "HTTP/1.0",
            "POST /v1/clicks HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
            &[202],
            true,
        ),
        case("HTTP/1.9 is read as 1.1", good("{}").replace("HTTP/1.1", "HTTP/1.9"), &[202], false),
        case("absolute form", good("{}").replace("/v1", "http://h:80/v1"), &[202], false),
        case("a query", good("{}").replace("clicks ", "clicks?a=b "), &[202], false),
        case("bytes beyond ASCII in a value", post("X: \u{e9}\r\nContent-Length: 2\r\n", "{}"), &[202], false),
        case("expect, body at hand", post("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}"), &[202], false),
        case("identity", post("Content-Encoding: identity\r\nContent-Length: 2\r\n", "{}"), &[202], false),
    ];
    for media_type in ["application/x-ndjson", "text/plain;charset=UTF-8", "APPLICATION/JSON; charset=\"utf-8\""] {
        let bytes = good("{}\n{}\n\n{}").replace("application/json", media_type);
        cases.push(case("every media type", bytes + &good("{}"), &[202, 202], false));
    }
    cases
}

fn refused_and_survived() -> Vec<Case> {
    let with_body = |line: &str| format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\r\n\r\n");
    vec![
        survived("404", with_body("POST /v1/click"), &[404, 202]),
        survived("404 with a trailing slash", with_body("POST /v1/clicks/"), &[404, 202]),
        survived("404 of GET", with_body("GET /"), &[404, 202]),
        survived(
            "404, chunked",
            "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            &[404, 202],
        ),
        survived("405 of GET", "GET /v1/clicks HTTP/1.1\r\nHost: h\r\n\r\n", &[405, 202]),
        survived("405 of OPTIONS", "OPTIONS /v1/clicks HTTP/1.1\r\nHost: h\r\n\r\n", &[405, 202]),
        survived("405 of OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", &[405, 202]),
        survived("405 of PUT with a body", with_body("PUT /v1/clicks"), &[405, 202]),
        survived("405 of CONNECT", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", &[405, 202]),
        survived("501 of an unknown method", with_body("BREW /v1/clicks"), &[501, 202]),
        survived("501 of a method in lower case", with_body("post /v1/clicks"), &[501, 202]),
        survived("415", good("{}").replace("application/json", "text/html"), &[415, 202]),
        survived("415 without a type", good("{}").replace("Content-Type: application/json\r\n", ""), &[415, 202]),
        survived("415 of a charset", good("{}").replace("/json", "/json; charset=utf-16"), &[415, 202]),
        survived("415 of gzip", post("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"), &[415, 202]),
    ]
}

fn framing_faults() -> Vec<Case> {
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n");
    let chunks = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), "{}");
    let coding = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
    vec![
        fatal("CL.TE", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"), &[400]),
        fatal("TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5c\r\n"), &[400]),
        fatal("CL.TE with an unknown coding", post("Content-Length: 6\r\nTransfer-Encoding: x\r\n", ""), &[400]),
        fatal("repeated length", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("repeated length, other case", post("Content-Length: 2\r\ncontent-length: 3\r\n", "{}"), &[400]),
        fatal("list of lengths", length("2, 2"), &[400]),
        fatal("+ length", length("+2"), &[400]),
        fatal("- length", length("-2"), &[400]),
        fatal("hexadecimal length", length("0x2"), &[400]),
        fatal("empty length", length(""), &[400]),
        fatal("length in two words", length("2 2"), &[400]),
        fatal("length with a fraction", length("2.0"), &[400]),
        fatal("length beyond 64 bits", length("18446744073709551618"), &[413]),
        fatal("length over the limit", length("1048577"), &[413]),
        fatal("gzip, chunked", coding("gzip, chunked"), &[501]),
        fatal("chunked, chunked", coding("chunked, chunked"), &[501]),
        fatal("chunked, identity", coding("chunked, identity"), &[501]),
        fatal("xchunked", coding("xchunked"), &[501]),
        fatal("chunked;q=1", coding("chunked;q=1"), &[501]),
        fatal("identity", coding("identity"), &[501]),
        fatal("quoted chunked", coding("\"chunked\""), &[501]),
        fatal("vertical tab before chunked", coding("\u{b}chunked"), &[400]),
        fatal("empty coding", coding(""), &[400]),
        fatal(
            "coding twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            &[400],
        ),
        fatal("coding in HTTP/1.0", coding("chunked").replace("HTTP/1.1", "HTTP/1.0"), &[400]),
        fatal("no length at all", post("", ""), &[411]),
        fatal("bare LF after the request line", good("{}").replacen("\r\n", "\n", 1), &[400]),
        fatal("bare LF after a field", good("{}").replace("h\r\n", "h\n"), &[400]),
        fatal("bare LF at the head's end", good("{}").replace("\r\n\r\n", "\r\n\n"), &[400]),
        fatal("bare CR in a value", post("X: a\rb\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("bare CR in a name", post("X\r: a\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("two CR", post("X: a\r\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("NUL in a value", post("X: a\0b\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("NUL in a name", post("X\0: ab\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("NUL in the target", good("{}").replace("clicks", "cli\0cks"), &[400]),
        fatal("obs-fold", post("X: a\r\n b\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("obs-fold with a tab", post("X: a\r\n\tb\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("a blank before the first field", "POST /v1/clicks HTTP/1.1\r\n Host: h\r\n\r\n", &[400]),
        fatal("space before a colon", post("Content-Length : 2\r\n", "{}"), &[400]),
        fatal("tab before a colon", post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), &[400]),
        fatal("no colon", post("Oops\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("no name", post(": x\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("a name in two words", post("X Y: x\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("a name beyond ASCII", post("\u{e9}: x\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("two types", post("Content-Type: text/plain\r\nContent-Length: 2\r\n", "{}"), &[400]),
        fatal("no Host", good("{}").replace("Host: h\r\n", ""), &[400]),
        fatal("two Hosts", good("{}").replace("Host: h\r\n", "Host: h\r\nHost: h\r\n"), &[400]),
        fatal("a Host in two words", good("{}").replace("Host: h", "Host: h i"), &[400]),
        fatal("a Host with a path", good("{}").replace("Host: h", "Host: h/i"), &[400]),
        fatal("HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]),
        fatal("HTTP/0.9 by name", get("GET / HTTP/0.9", ""), &[505]),
        fatal("HTTP/0.9 by shape", get("GET /", ""), &[400]),
        fatal("no version digits", get("GET / HTTP/1", "Host: h\r\n"), &[400]),
        fatal("version in lower case", get("GET / http/1.1", "Host: h\r\n"), &[400]),
        fatal("two spaces", get("GET  / HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("a tab between", get("GET\t/ HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("a tab in the target", get("GET /v1/clicks\t HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("a fragment", get("GET /v1/clicks#x HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("bytes beyond ASCII in the target", get("GET /\u{e9} HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("a blank at the end", get("GET / HTTP/1.1 ", "Host: h\r\n"), &[400]),
        fatal("a blank at the start", get(" GET / HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("a relative target", get("GET v1/clicks HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("a foreign scheme", get("GET ftp://h/ HTTP/1.1", "Host: h\r\n"), &[400]),
        fatal("two empty lines before a request", "\r\n\r\n", &[400]),
        fatal("chunk size missing", chunks("\r\n"), &[400]),
        fatal("chunk size with a sign", chunks("+2\r\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk size with 0x", chunks("0x2\r\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk size after a blank", chunks(" 2\r\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk size with a blank behind", chunks("2 \r\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk size of no number", chunks("g\r\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk size beyond 64 bits", chunks("10000000000000002\r\n{}\r\n0\r\n\r\n"), &[413]),
        fatal("chunk size over the limit", chunks("100001\r\n{}\r\n0\r\n\r\n"), &[413]),
        fatal("chunk size ended by LF alone", chunks("2\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk size ended by CR alone", chunks("2\r{}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk longer than its size", chunks("2\r\n{}}\r\n0\r\n\r\n"), &[400]),
        fatal("chunk ended by LF alone", chunks("2\r\n{}\n0\r\n\r\n"), &[400]),
        fatal("LF in an extension", chunks("2;a\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("CR in an extension", chunks("2;a\rb\r\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("NUL in an extension", chunks("2;\0\r\n{}\r\n0\r\n\r\n"), &[400]),
        fatal("a trailer without a colon", chunks("0\r\nOops\r\n\r\n"), &[400]),
        fatal("a trailer with a space before its colon", chunks("0\r\nA : b\r\n\r\n"), &[400]),
        fatal("a folded trailer", chunks("0\r\nA: b\r\n c\r\n\r\n"), &[400]),
        fatal("a trailer ended by LF alone", chunks("0\r\nA: b\n\r\n"), &[400]),
        fatal("the last line ended by LF alone", chunks("0\r\n\n"), &[400]),
        fatal("the last line ended by CR alone", chunks("0\r\n\rX"), &[400]),
        fatal("an expectation", post("Expect: 200-ok\r\nContent-Length: 2\r\n", "{}"), &[417]),
        fatal("two expectations", post("Expect: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n", "{}"), &[417]),
        fatal(
            "415 of one who awaits 100",
            "POST /v1/clicks HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            &[415],
        ),
        fatal("too many fields", post(&"A: b\r\n".repeat(65), ""), &[431]),
        fatal("too long a head", post(&format!("A: {}\r\n", "b".repeat(9000)), ""), &[431]),
        fatal("too long a target", get(&format!("GET /{} HTTP/1.1", "b".repeat(9000)), ""), &[414]),
        fatal("extensions without end", chunks(&format!("2;{}", "x".repeat(9000))), &[400]),
        fatal("zeros without end", chunks(&"0".repeat(9000)), &[400]),
        fatal("trailers without end", chunks(&format!("0\r\n{}", "A: b\r\n".repeat(65))), &[431]),
        fatal("a long trailer", chunks(&format!("0\r\nA: {}", "b".repeat(9000))), &[431]),
        fatal(
            "chunks over the limit together",
            chunks(&format!("80000\r\n{}\r\n80001\r\n", "x".repeat(0x80000))),
            &[413],
        ),
    ]
}

fn corpus() -> Vec<Case> {
    taken().into_iter().chain(refused_and_survived()).chain(framing_faults()).collect()
}

#[test]
fn every_sentence_of_the_contract_whole() {
    for case in corpus() {
        let (seen, out) = run(case.bytes.as_bytes(), &[], &limits());
        assert_eq!((&seen.statuses[..], seen.stopped), (case.statuses, case.ends), "{}", case.name);
        assert_eq!(seen.shut_down, case.ends, "{}: FIN follows the last reply", case.name);
        for (index, reply) in replies(&out).iter().enumerate() {
            let is_last = index + 1 == case.statuses.len();
            assert_eq!(reply.field("connection") == Some("close"), case.ends && is_last, "{}", case.name);
            check_reply_is_for_people(reply);
        }
    }
}

fn check_reply_is_for_people(reply: &crate::harness::Reply) {
    if reply.status < 400 {
        return;
    }
    let problem: serde_json::Value = serde_json::from_str(&reply.body).expect("a problem is JSON");
    assert_eq!(reply.field("content-type"), Some("application/problem+json"));
    assert_eq!(problem["status"], reply.status);
    let detail = problem["detail"].as_str().expect("a problem has a detail");
    assert!(detail.len() > 40 && detail.ends_with('.'), "not a sentence: {detail}");
    assert_eq!(reply.field("allow").is_some(), reply.status == 405);
    assert_eq!(reply.field("retry-after").is_some(), reply.status == 503);
}

#[test]
fn a_remembered_head_changes_nothing() {
    for before in [good("{}"), post("Content-Length: 2\r\n", "{}"), good("{}").replace("clicks ", "clicks?a=b ")] {
        for case in corpus() {
            let (seen, _) = run((before.clone() + &case.bytes).as_bytes(), &[], &limits());
            assert_eq!((seen.statuses[0], &seen.statuses[1..]), (202, case.statuses), "{}", case.name);
            assert_eq!(seen.stopped, case.ends, "{}", case.name);
        }
    }
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    for case in corpus() {
        let bytes = case.bytes.as_bytes();
        let whole = settled(run(bytes, &[], &limits()).0);
        let step = if bytes.len() > 2000 { 97 } else { 1 };
        for cut in (0..bytes.len()).step_by(step) {
            assert_eq!(settled(run(bytes, &[cut], &limits()).0), whole, "{} cut at {cut}", case.name);
        }
        let every: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(settled(run(bytes, &every, &limits()).0), whole, "{} byte by byte", case.name);
    }
}

#[test]
fn two_cuts_anywhere_in_a_short_case_change_nothing() {
    for case in corpus().iter().filter(|case| case.bytes.len() < 200) {
        let bytes = case.bytes.as_bytes();
        let whole = settled(run(bytes, &[], &limits()).0);
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                assert_eq!(settled(run(bytes, &[first, second], &limits()).0), whole, "{} {first} {second}", case.name);
            }
        }
    }
}

#[test]
fn what_the_core_is_told_of_a_request() {
    for (fields, format, prefetch) in [
        ("Content-Type: application/json\r\nSec-Purpose: prefetch;prerender\r\n", BodyFormat::Json, true),
        ("content-type:application/x-ndjson\r\nPurpose: prefetch\r\n", BodyFormat::Ndjson, true),
        ("CONTENT-TYPE: text/plain\r\nSec-Purpose: none\r\n", BodyFormat::Text, false),
    ] {
        let bytes = format!("POST /v1/clicks HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: 5\r\n\r\n{{}}\n{{}}");
        let (seen, _) = run(bytes.as_bytes(), &[], &limits());
        let [request] = &seen.requests[..] else { panic!("one request: {seen:?}") };
        assert_eq!((request.request.format, request.request.prefetch), (format, prefetch));
        assert_eq!((request.body.as_slice(), request.end), (&b"{}\n{}"[..], End::Whole));
    }
}

#[test]
fn head_is_refused_without_a_body() {
    let (_, out) = run(b"HEAD /v1/clicks HTTP/1.1\r\nHost: h\r\n\r\n", &[], &limits());
    assert!(out.starts_with(b"HTTP/1.1 405 ") && out.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&out));
}

/// One request of a stream, and what must come of it.
#[derive(Clone, Debug)]
struct Generated {
    bytes: Vec<u8>,
    status: u16,
    body: Option<Vec<u8>>,
}

fn generated() -> impl Strategy<Value = Generated> {
    let body = prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b'\r')], 0..300);
    let sizes = prop::collection::vec(1usize..120, 0..5);
    let types = prop::sample::select(vec!["application/json", "application/x-ndjson", "text/plain", "text/html"]);
    let path = prop::sample::select(vec!["/v1/clicks", "/v1/clicks", "/v1/clicks", "/elsewhere"]);
    (body, any::<bool>(), sizes, types, path, 0usize..3).prop_map(|(body, chunked, sizes, media_type, path, pad)| {
        let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: h\r\n").into_bytes();
        bytes.extend("X-Pad: ü\r\n".repeat(pad).bytes());
        bytes.extend(format!("Content-Type: {media_type}\r\n").bytes());
        if chunked {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut rest = &body[..];
            for size in sizes.into_iter().chain([usize::MAX]) {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                if !chunk.is_empty() {
                    bytes.extend(format!("{:x};n={pad}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                rest = after;
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(&body);
        }
        let status = match (path, media_type) {
            ("/elsewhere", _) => 404,
            (_, "text/html") => 415,
            _ => 202,
        };
        Generated { bytes, status, body: (status == 202).then_some(body) }
    })
}

/// Requests pipelined, received in pieces, answered as they can be.
fn answer_as_received(bytes: &[u8], cuts: &[usize], limits: &HttpConfig) -> Transcript {
    let mut driver = Driver::new(limits.clone());
    let mut from = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let cut = cut.clamp(from, bytes.len());
        driver.receive(&bytes[from..cut]);
        if cut % 3 != 0 {
            driver.release_all();
        }
        from = cut;
    }
    driver.release_all();
    driver.connection.finished();
    driver.receive(&[]);
    driver.release_all();
    assert!(driver.connection.is_over(), "both sides have finished");
    driver.finish().0
}

fn cuts(pieces: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..4000, 0..pieces).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_of_a_stream_is_found_whole_and_answered_in_order(
        stream in prop::collection::vec(generated(), 1..8),
        cuts in cuts(20),
        pipeline_max in 1u32..5,
    ) {
        let bytes: Vec<u8> = stream.iter().flat_map(|request| request.bytes.clone()).collect();
        let seen = answer_as_received(&bytes, &cuts, &HttpConfig { pipeline_max, ..limits() });
        let statuses: Vec<u16> = stream.iter().map(|request| request.status).collect();
        prop_assert_eq!(seen.statuses, statuses);
        let bodies: Vec<Vec<u8>> = stream.into_iter().filter_map(|request| request.body).collect();
        let seen_bodies: Vec<Vec<u8>> = seen.requests.into_iter().map(|request| request.body).collect();
        prop_assert_eq!(seen_bodies, bodies);
    }

    #[test]
    fn arbitrary_bytes_mean_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cuts in cuts(8),
    ) {
        check_any_bytes(&bytes, &cuts);
    }

    #[test]
    fn damaged_requests_mean_the_same_however_they_are_cut(
        pick in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\r\n\0 :;,0+aG\x80".to_vec())), 1..4),
        cuts in cuts(8),
    ) {
        let cases: Vec<Case> = corpus().into_iter().filter(|case| case.bytes.len() < 1000).collect();
        let mut bytes = (good("{}") + &cases[pick.index(cases.len())].bytes).into_bytes();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        check_any_bytes(&bytes, &cuts);
    }
}

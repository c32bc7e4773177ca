//! What campaigns of tests print adds up, and nothing is counted twice.

use std::path::Path;
use std::process::Command;

/// Exit status and standard output of `scripts/campaigns sum` over files with these texts.
fn sum(texts: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |at: usize| folder.path().join(format!("{at}.txt"));
    for (at, text) in texts.iter().enumerate() {
        std::fs::write(path(at), text).expect("written");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/campaigns");
    let paths = (0..texts.len()).map(path);
    let output = Command::new("python3").arg(script).arg("sum").args(paths).output().expect("Python 3");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn document(range: [u64; 2], clicks: u64, verdict: &str) -> String {
    format!(
        "running 1 test\ntest it ... {{\"campaign\":\"seeds\",\"commit\":\"c\",\"build\":\"checked\",\"range\":{range:?},\"clicks\":{clicks},\
         \"kinds\":{{\"torn\":[{clicks},1]}},\"seconds\":2,\"verdict\":\"{verdict}\"}}\nok\n"
    )
}

#[test]
fn disjoint_ranges_add_up_and_one_failure_fails_all() {
    let (first, second) = (document([1, 300], 5, "pass"), document([301, 400], 7, "pass"));
    let (code, text, errors) = sum(&[&first, &second]);
    assert_eq!(code, Some(0), "{errors}");
    let sums: serde_json::Value = serde_json::from_str(&text).expect("one document");
    let expected = serde_json::json!({
        "campaign": "seeds", "commit": "c", "build": "checked", "ranges": [[1, 300], [301, 400]], "clicks": 12,
        "kinds": {"torn": [12, 2]}, "seconds": 4, "verdict": "pass",
    });
    assert_eq!(sums, expected);
    let (code, text, _) = sum(&[&first, &document([301, 400], 7, "fail")]);
    assert!(code == Some(1) && text.contains("\"verdict\": \"fail\""), "{text}");
}

#[test]
fn what_was_tried_twice_is_refused() {
    let (code, _, errors) = sum(&[&document([1, 300], 5, "pass"), &document([300, 400], 7, "pass")]);
    assert!(code == Some(1) && errors.contains("[300, 400] overlaps [1, 300]"), "{errors}");
    let (code, _, errors) = sum(&["nothing ran\n"]);
    assert!(code == Some(1) && errors.contains("no document of a campaign"), "{errors}");
}

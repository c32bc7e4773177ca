//! Pure. librdkafka's properties as an operator may set them: which are taken, which the protocol decides, which are secret.

/// What exactly-once rests on, or what has a setting of its own.
const DECIDED: [&str; 18] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "metadata.broker.list",
    "request.required.acks",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Parts of the names of properties whose values are never shown.
const SECRET: [&str; 5] = ["password", "secret", "key.pem", "oauthbearer.config", "token"];

/// Why a text of `key=value`, a line each, is not taken; only keys are named, for a value may be a secret. Whether librdkafka has a
/// property is asked of itself, at the start and by `tollgate check`.
pub fn refusal(text: &str) -> Option<String> {
    text.lines().find_map(refusal_of_line)
}

fn refusal_of_line(line: &str) -> Option<String> {
    let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    match line.split_once('=') {
        Some((key, _)) if DECIDED.contains(&key) => {
            Some(format!("{key} is decided by the protocol or by a flag of its own, and cannot be set"))
        }
        Some((key, _)) if !key.is_empty() && key.bytes().all(name) => None,
        Some(_) | None => {
            Some("must be key=value, the key in small letters, digits, dots, dashes, underscores".to_owned())
        }
    }
}

/// `key=value`, a line each; of two for one key the last counts.
pub fn properties(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// As a message may show what was said: a text without `=` may be a secret whose key was forgotten.
pub fn quoted(text: &str) -> String {
    if text.lines().all(|line| line.contains('=')) {
        format!("{:?}", shown(&properties(text)))
    } else {
        "(one has no =, and is not shown: it may be a secret)".to_owned()
    }
}

/// As `tollgate check` shows them.
pub fn shown(properties: &[(String, String)]) -> String {
    let shown = |(key, value): &(String, String)| {
        let secret = SECRET.iter().any(|part| key.contains(part));
        format!("{key}={}", if secret { "(hidden)" } else { value })
    };
    properties.iter().map(shown).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_decides_is_not_taken_and_secrets_are_not_shown() {
        assert_eq!(refusal("compression.type=lz4\nsasl.password=a=b"), None);
        for line in ["transactional.id=x", "acks=1", "isolation.level=read_uncommitted"] {
            let why = refusal(&format!("sasl.password=hush\n{line}")).expect("refused");
            assert!(why.starts_with(line.split('=').next().expect("a key")) && !why.contains("hush"), "{why}");
        }
        for line in ["linger.ms", "=x", "A B=c", "hush"] {
            let why = refusal(line).expect("refused");
            assert!(why.contains("key=value") && !why.contains("hush"), "{line}: {why}");
        }
        let set = properties("linger.ms=5\nsasl.password=p=q");
        assert_eq!(set[1], ("sasl.password".to_owned(), "p=q".to_owned()));
        assert_eq!(shown(&set), "linger.ms=5,sasl.password=(hidden)");
        assert_eq!(quoted("linger.ms=5"), "\"linger.ms=5\"");
        assert!(quoted("linger.ms=5\nhush").contains("has no =") && !quoted("hush").contains("hush"));
    }
}

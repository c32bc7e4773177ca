//! Drives. `tollgate token`: makes, lists and revokes tokens in a data directory, beside a process that serves it or not.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use tollgate_global::{Draft, Scope, TOKENS_FILE, Token, TokenError, TokenFile};

use super::wal::CommandError;
use crate::exit::Exit;

/// Standard output has the token alone, so that a shell can take it. A directory of which nothing is known is a mistyped one, unless it
/// is said to be new.
pub fn create(dir: &Path, draft: &Draft, is_new: bool, now_ms: i64, out: &mut dyn Write) -> Result<Exit, CommandError> {
    if !is_new && let Some(why) = unknown(dir) {
        let text = format!("{why}; no token was made. For one that nothing was started on yet, say --new");
        return Err(CommandError::Refused(text));
    }
    let (token, text) = TokenFile::create(dir, draft, now_ms).map_err(refused)?;
    writeln!(out, "{text}")?;
    let _ = writeln!(
        std::io::stderr(),
        "token {} for {}, {} requests a second, in {}. It is shown this once; only its hash is kept",
        token.id,
        sees(&token),
        token.rate_per_s,
        dir.join(TOKENS_FILE).display(),
    );
    Ok(Exit::Clean)
}

pub fn list(dir: &Path, json: bool, now_ms: i64, out: &mut dyn Write) -> Result<Exit, CommandError> {
    unknown(dir).map_or(Ok(()), |why| Err(CommandError::Refused(why)))?;
    let tokens = TokenFile::open(dir).map_err(refused)?.now();
    if json {
        let tokens: Vec<_> = tokens.all().iter().map(|token| as_json(token)).collect();
        writeln!(out, "{:#}", json!({ "tokens": tokens }))?;
        return Ok(Exit::Clean);
    }
    if tokens.is_empty() {
        writeln!(
            out,
            "no tokens in {}: the loopback alone is served, and whoever reaches it sees everything",
            dir.display()
        )?;
    }
    for token in tokens.all() {
        let revoked = token.revoked_ms.map_or(String::new(), |at_ms| format!(", REVOKED {} ago", age(now_ms - at_ms)));
        let name = if token.name.is_empty() { "-" } else { &token.name };
        let (made, rate) = (age(now_ms - token.created_ms), token.rate_per_s);
        writeln!(out, "{}  {name:<24} {}, {rate}/s, made {made} ago{revoked}", token.id, sees(token))?;
    }
    Ok(Exit::Clean)
}

pub fn revoke(dir: &Path, named: &str, now_ms: i64, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let token = TokenFile::revoke(dir, named, now_ms).map_err(refused)?;
    writeln!(out, "token {} ({}) is revoked: a running process refuses it within two seconds", token.id, token.name)?;
    Ok(Exit::Clean)
}

/// Why a directory is none that a query port could have its tokens in.
fn unknown(dir: &Path) -> Option<String> {
    let why = if dir.exists() { "holds nothing of tollgate" } else { "is not there" };
    let text = "name the directory of `tollgate up`, `serve` or `global` with --data-dir";
    (!tollgate_global::is_known(dir)).then(|| format!("{} {why}: {text}", dir.display()))
}

fn sees(token: &Token) -> String {
    let scope = token.scope();
    let Some(Scope { campaigns, advertisers }) = scope.as_deref() else { return "everything".to_owned() };
    let named = |what: &str, ids: &std::collections::BTreeSet<String>| match ids.len() {
        0 => None,
        many @ 1..=3 => {
            let plural = if many == 1 { "" } else { "s" };
            Some(format!("{what}{plural} {}", ids.iter().cloned().collect::<Vec<_>>().join(", ")))
        }
        many => Some(format!("{many} {what}s")),
    };
    let parts = [named("campaign", campaigns), named("advertiser", advertisers)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn as_json(token: &Token) -> serde_json::Value {
    let scope = token.scope().map(|scope| json!({ "campaigns": scope.campaigns, "advertisers": scope.advertisers }));
    json!({
        "id": token.id, "name": token.name, "scope": scope, "rate_per_s": token.rate_per_s,
        "created_ms": token.created_ms, "revoked_ms": token.revoked_ms,
    })
}

fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn refused(error: TokenError) -> CommandError {
    match error {
        TokenError::Refused(text) => CommandError::Refused(text),
        TokenError::Io { .. } | TokenError::Unreadable { .. } | TokenError::NotSynced(_) => {
            CommandError::Halted(Exit::DataDir, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_made_in_a_directory_that_nothing_is_known_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let draft = Draft { name: String::new(), scope: None, rate_per_s: 1 };
        let make = |dir: &Path, is_new| create(dir, &draft, is_new, 1, &mut Vec::new());
        let (missing, new) = (folder.path().join("mistyped"), folder.path().join("new"));
        for (dir, why) in
            [(&missing, "mistyped is not there"), (&folder.path().to_owned(), "holds nothing of tollgate")]
        {
            let refused = make(dir, false).expect_err("refused");
            let text = refused.to_string();
            assert!(text.contains(why) && text.contains("--new") && refused.exit() == Exit::Usage, "{text}");
            let text = list(dir, false, 1, &mut Vec::new()).expect_err("refused").to_string();
            assert!(text.contains(why), "{text}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was made");
        make(&new, true).expect("made");
        make(&new, false).expect("it has tokens");
        for name in ["identity.toml", "global.redb"] {
            let dir = folder.path().join(name);
            std::fs::create_dir(&dir).expect("made");
            std::fs::write(dir.join(name), "").expect("written");
            make(&dir, false).expect("it is known");
        }
    }

    #[test]
    fn ages_are_said_in_one_unit() {
        let ages = [-5, 119_999, 120_000, 7_200_000, 172_800_000].map(age);
        assert_eq!(ages, ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}

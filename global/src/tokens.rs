//! Pure. Tokens of the query port: what each may see, how often it may ask, and how it is kept. A token is 256 random bits that
//! are shown once; kept is their SHA-256. A slow hash would protect words that people choose; nobody can try 2^256 numbers,
//! however fast each try is, and every request pays for the hash.
//!
//! ```text
//! token    tgt_ | 64 hexadecimal digits
//! kept     id = the first 12 digits of the hash, the hash, name, scope, rate, when it was made and revoked
//! ```

mod bucket;
mod file;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use bucket::Bucket;
pub use file::{TOKENS_BYTES_MAX, TOKENS_FILE, TokenError, TokenFile};

use crate::catalogue::ID_BYTES_MAX;
use crate::question::Scope;

/// What every token begins with, so that a person, or a search for secrets, knows one.
const PREFIX: &str = "tgt_";
const TOKEN_BYTES: usize = 32;
const ID_DIGITS: usize = 12;
/// Tokens of a data directory, revoked ones included; beyond it the oldest revoked ones go.
const TOKENS_MAX: usize = 10_000;
/// Campaigns and advertisers of one token.
const SCOPE_IDS_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 64;
/// Requests a second, where nothing else is said, and at most.
pub const RATE_DEFAULT: u32 = 100;
pub const RATE_MAX: u32 = 100_000;

pub type Hash = [u8; 32];

/// One token, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names it to people and commands; says nothing of the token.
    pub id: String,
    pub name: String,
    sha256: String,
    /// None: everything.
    #[serde(default, with = "shared")]
    scope: Option<Arc<Scope>>,
    pub rate_per_s: u32,
    pub created_ms: i64,
    pub revoked_ms: Option<i64>,
}

/// One in memory, for all who ask with its token; kept as itself.
mod shared {
    use super::{Arc, Deserialize, Scope, Serialize};

    pub fn serialize<S: serde::Serializer>(scope: &Option<Arc<Scope>>, to: S) -> Result<S::Ok, S::Error> {
        scope.as_deref().serialize(to)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Arc<Scope>>, D::Error> {
        Ok(Option::<Scope>::deserialize(from)?.map(Arc::new))
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    tokens: Vec<Token>,
}

const VERSION: u32 = 1;

/// All tokens of a data directory.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    all: Vec<Arc<Token>>,
    by_hash: BTreeMap<Hash, usize>,
}

/// A token that is to be made.
#[derive(Clone, Debug)]
pub struct Draft {
    pub name: String,
    /// None: everything.
    pub scope: Option<Scope>,
    pub rate_per_s: u32,
}

impl Token {
    pub fn scope(&self) -> Option<Arc<Scope>> {
        self.scope.clone()
    }

    pub fn is_revoked(&self) -> bool {
        self.revoked_ms.is_some()
    }
}

impl Draft {
    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let name = &self.name;
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Some(format!("--name {name:?}: up to {NAME_BYTES_MAX} bytes without control characters"));
        }
        if !(1..=RATE_MAX).contains(&self.rate_per_s) {
            return Some(format!("--rate {}: 1 to {RATE_MAX} requests a second", self.rate_per_s));
        }
        let scope = self.scope.as_ref()?;
        let ids = || scope.campaigns.iter().chain(&scope.advertisers);
        if let Some(id) = ids().find(|id| !(1..=ID_BYTES_MAX).contains(&id.len())) {
            return Some(format!("{id:?}: ids of campaigns and advertisers have 1 to {ID_BYTES_MAX} bytes"));
        }
        match ids().count() {
            0 => Some("say what the token may see: --campaign, --advertiser, or --all".to_owned()),
            many if many > SCOPE_IDS_MAX => {
                Some(format!("{many} campaigns and advertisers; {SCOPE_IDS_MAX} fit a token"))
            }
            _ => None,
        }
    }
}

impl Tokens {
    /// None was ever made, or somebody took the file away.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// In the order in which they were made.
    pub fn all(&self) -> &[Arc<Token>] {
        &self.all
    }

    /// The token of this text, if it is one and not revoked. Found by its hash: how long that takes tells of the hash, from which no
    /// way leads to a token.
    pub fn find(&self, text: &str) -> Option<(Hash, &Arc<Token>)> {
        let hash = hash_of(text)?;
        let token = &self.all[*self.by_hash.get(&hash)?];
        (!token.is_revoked()).then_some((hash, token))
    }

    /// Whether the token of this hash still counts.
    pub fn holds(&self, hash: &Hash) -> bool {
        self.by_hash.get(hash).is_some_and(|at| !self.all[*at].is_revoked())
    }

    /// Makes a token of random bytes; gives it as what is kept, and as the text that is shown once.
    fn create(
        &mut self,
        draft: &Draft,
        random: [u8; TOKEN_BYTES],
        now_ms: i64,
    ) -> Result<(Arc<Token>, String), String> {
        if let Some(fault) = draft.fault() {
            return Err(fault);
        }
        let text = format!("{PREFIX}{}", hex(&random));
        let hash = hash_of(&text).expect("a token's form");
        let sha256 = hex(&hash);
        let id = sha256[..ID_DIGITS].to_owned();
        if self.all.iter().any(|token| token.id == id) {
            return Err(format!("another token has the id {id} already; try again"));
        }
        if self.all.len() >= TOKENS_MAX {
            let Some(oldest) = self.all.iter().position(|token| token.is_revoked()) else {
                return Err(format!("there are {TOKENS_MAX} tokens already; revoke some"));
            };
            self.all.remove(oldest);
        }
        let scope = draft.scope.clone().map(Arc::new);
        let (name, rate_per_s) = (draft.name.clone(), draft.rate_per_s);
        let token = Arc::new(Token { id, name, sha256, scope, rate_per_s, created_ms: now_ms, revoked_ms: None });
        self.all.push(token.clone());
        self.index()?;
        Ok((token, text))
    }

    /// Revokes the token of this id, or of this name where it is one token's alone. One that is revoked already stays as it is.
    fn revoke(&mut self, named: &str, now_ms: i64) -> Result<Arc<Token>, String> {
        let is_it = |token: &Arc<Token>| token.id == named || (token.name == named && !token.is_revoked());
        let found: Vec<usize> = (0..self.all.len()).filter(|at| is_it(&self.all[*at])).collect();
        match found[..] {
            [] if let Some(revoked) = self.all.iter().rfind(|token| token.name == named) => Ok(revoked.clone()),
            [] => Err(format!("there is no token {named:?}; `tollgate token list` shows those that there are")),
            [at] => {
                let mut token = Token::clone(&self.all[at]);
                token.revoked_ms = token.revoked_ms.or(Some(now_ms));
                self.all[at] = Arc::new(token);
                Ok(self.all[at].clone())
            }
            _ => Err(format!("{} tokens are called {named:?}; name one by its id", found.len())),
        }
    }

    fn index(&mut self) -> Result<(), String> {
        self.by_hash.clear();
        for (at, token) in self.all.iter().enumerate() {
            let hash = unhex(&token.sha256).ok_or_else(|| format!("token {}: its hash is no SHA-256", token.id))?;
            if self.by_hash.insert(hash, at).is_some() {
                return Err(format!("token {} stands there twice", token.id));
            }
        }
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Tokens, String> {
        let kept: Kept = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if kept.version != VERSION {
            return Err(format!("it has version {}, this tollgate reads {VERSION}", kept.version));
        }
        let mut tokens = Tokens { all: kept.tokens.into_iter().map(Arc::new).collect(), ..Tokens::default() };
        tokens.index()?;
        Ok(tokens)
    }

    fn bytes(&self) -> Vec<u8> {
        let tokens = self.all.iter().map(|token| Token::clone(token)).collect();
        let mut bytes = serde_json::to_vec_pretty(&Kept { version: VERSION, tokens }).expect("plain data");
        bytes.push(b'\n');
        bytes
    }
}

/// None: it has not the form of a token, and is not hashed.
fn hash_of(text: &str) -> Option<Hash> {
    let digits = text.strip_prefix(PREFIX)?;
    let form = digits.len() == 2 * TOKEN_BYTES && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    form.then(|| Sha256::digest(text.as_bytes()).into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(name: &str) -> Draft {
        Draft { name: name.to_owned(), scope: None, rate_per_s: RATE_DEFAULT }
    }

    fn scope(campaigns: &[&str]) -> Option<Scope> {
        Some(Scope { campaigns: campaigns.iter().map(|id| (*id).to_owned()).collect(), ..Scope::default() })
    }

    #[test]
    fn a_token_is_found_until_it_is_revoked_and_nothing_of_it_is_kept() {
        let mut tokens = Tokens::default();
        let (token, text) = tokens.create(&Draft { scope: scope(&["c"]), ..draft("acme") }, [7; 32], 5).expect("made");
        assert!(text.len() == 68 && text.starts_with("tgt_0707"), "{text}");
        let kept = String::from_utf8(tokens.bytes()).expect("JSON");
        assert!(!kept.contains(&text[4..]) && kept.contains(&token.id), "{kept}");
        let mut tokens = Tokens::read(kept.as_bytes()).expect("read");
        let (hash, found) = tokens.find(&text).expect("there");
        assert_eq!(
            (found.id.as_str(), found.scope().as_deref(), found.created_ms),
            (token.id.as_str(), scope(&["c"]).as_ref(), 5)
        );
        assert!(tokens.holds(&hash));
        for other in
            ["", "tgt_", &text[..67], &text.to_uppercase(), &format!("{text} "), &text.replace("07", "08"), &kept]
        {
            assert!(tokens.find(other).is_none(), "{other}");
        }
        tokens.revoke("acme", 6).expect("revoked");
        assert!(tokens.find(&text).is_none() && !tokens.holds(&hash) && !tokens.is_empty());
        for again in [&token.id, "acme"] {
            assert_eq!(tokens.revoke(again, 9).expect("again").revoked_ms, Some(6));
        }
        let tokens = Tokens::read(&tokens.bytes()).expect("read");
        assert!(tokens.find(&text).is_none() && tokens.all()[0].is_revoked());
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_with_the_flag() {
        let long: Vec<String> = (0..=SCOPE_IDS_MAX).map(|n| n.to_string()).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        for (draft, words) in [
            (Draft { rate_per_s: 0, ..draft("a") }, "--rate 0"),
            (Draft { rate_per_s: RATE_MAX + 1, ..draft("a") }, "1 to 100000"),
            (draft(&"x".repeat(65)), "--name"),
            (draft("a\nb"), "--name"),
            (Draft { scope: scope(&[]), ..draft("a") }, "--all"),
            (Draft { scope: scope(&[""]), ..draft("a") }, "1 to 64 bytes"),
            (Draft { scope: scope(&long), ..draft("a") }, "1000 fit"),
        ] {
            let refused = Tokens::default().create(&draft, [1; 32], 0).expect_err(words);
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn names_are_free_and_ids_are_not() {
        let mut tokens = Tokens::default();
        let (first, _) = tokens.create(&draft("same"), [1; 32], 0).expect("made");
        tokens.create(&draft("same"), [2; 32], 0).expect("made");
        assert!(tokens.create(&draft("same"), [2; 32], 0).is_err(), "the same random bytes");
        assert!(tokens.revoke("same", 1).expect_err("which?").contains("2 tokens"));
        assert!(tokens.revoke("none", 1).expect_err("none").contains("token list"));
        tokens.revoke(&first.id, 1).expect("by id");
        tokens.revoke("same", 1).expect("the other is alone now");
    }

    #[test]
    fn the_oldest_revoked_ones_make_room() {
        let mut tokens = Tokens::default();
        let random = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            bytes
        };
        // The index is made once here: made at each of them, it is all that this test does.
        for n in 0..TOKENS_MAX {
            let mut one = Tokens::default();
            tokens.all.push(one.create(&draft(&n.to_string()), random(n), 0).expect("made").0);
        }
        assert!(tokens.create(&draft("more"), random(TOKENS_MAX), 0).expect_err("full").contains("10000"));
        tokens.revoke("3", 1).expect("revoked");
        tokens.create(&draft("more"), random(TOKENS_MAX), 2).expect("room");
        assert!(tokens.all().len() == TOKENS_MAX && !tokens.all().iter().any(|token| token.name == "3"));
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        for (text, words) in [
            ("", "EOF"),
            ("{\"version\":2,\"tokens\":[]}", "version 2"),
            ("{\"version\":1,\"tokens\":[],\"more\":1}", "unknown field"),
        ] {
            assert!(Tokens::read(text.as_bytes()).expect_err(text).contains(words), "{text}");
        }
    }
}

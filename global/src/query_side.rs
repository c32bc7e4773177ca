//! Drives. What the query port has beside the store: the tokens that let requests in, the ad catalogue that says whose clicks are
//! whose. Both are files that change while they are used; one thread looks after them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::catalogue::{CatalogueError, CatalogueFile};
use crate::consumer::wall_ms;
use crate::directory;
use crate::metrics::Text;
use crate::tokens::{TokenError, TokenFile};

/// A token that was revoked is refused after this, a catalogue that changed in force after twice.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What of it can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySideConfig {
    pub data_dir: PathBuf,
    /// The file of the ad catalogue.
    pub ads: Option<PathBuf>,
    pub listen: SocketAddr,
}

/// Why the port is not opened; the variants say what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum QuerySideError {
    /// Counts would be everybody's.
    #[error(
        "--query-listen {listen} is not the loopback, and there are no tokens in {}: whoever reaches it would read all counts. Make \
         one first, `tollgate token create --data-dir {} --all{}`, or listen on 127.0.0.1",
        data_dir.display(), data_dir.display(), if directory::is_known(data_dir) { "" } else { " --new" }
    )]
    Open { listen: SocketAddr, data_dir: PathBuf },
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

/// Why a request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It came without a token.
    NoToken,
    /// With one that is not, or no more.
    BadToken,
    /// Faster than its token may ask.
    Rate,
    /// Where no token is needed: by a name that is not the loopback's.
    Host,
}

impl Refused {
    pub const ALL: [Refused; 4] = [Refused::NoToken, Refused::BadToken, Refused::Rate, Refused::Host];

    pub fn name(self) -> &'static str {
        match self {
            Refused::NoToken => "no_token",
            Refused::BadToken => "bad_token",
            Refused::Rate => "rate",
            Refused::Host => "host",
        }
    }
}

/// One of a process; shared by its query port, its store, its admin port.
pub struct QuerySide {
    pub catalogue: Arc<CatalogueFile>,
    pub tokens: TokenFile,
    refused: [AtomicU64; 4],
}

impl QuerySide {
    /// Reads both files, and refuses to open the counts to everybody. A catalogue that is broken is replaced by the last good one.
    pub fn open(config: &QuerySideConfig) -> Result<QuerySide, QuerySideError> {
        QuerySide::with(config, CatalogueFile::open_or_last_good)
    }

    /// Whether it could be opened, with the very file that is named.
    pub fn check(config: &QuerySideConfig) -> Result<(), QuerySideError> {
        QuerySide::with(config, CatalogueFile::open).map(|_| ())
    }

    fn with(
        config: &QuerySideConfig,
        open: fn(Option<&Path>, &Path, i64) -> Result<CatalogueFile, CatalogueError>,
    ) -> Result<QuerySide, QuerySideError> {
        let QuerySideConfig { data_dir, ads, listen } = config;
        let tokens = TokenFile::open(data_dir)?;
        if tokens.now().is_empty() && !listen.ip().to_canonical().is_loopback() {
            return Err(QuerySideError::Open { listen: *listen, data_dir: data_dir.clone() });
        }
        let catalogue = Arc::new(open(ads.as_deref(), data_dir, wall_ms())?);
        Ok(QuerySide { catalogue, tokens, refused: Default::default() })
    }

    /// Looks after the files until the sender of `stop` is used or gone.
    pub fn watch(&self, stop: &Receiver<()>) {
        while stop.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            self.tokens.look();
            self.catalogue.look(wall_ms());
        }
    }

    /// What a person should know.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.catalogue.is_broken() {
            notes.push("the --ads file cannot be used: an older catalogue is in force".to_owned());
        }
        if self.tokens.is_broken() {
            notes.push("the file of tokens cannot be read: those of before hold".to_owned());
        }
        notes
    }

    pub fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Its metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = Text::default();
        let (catalogue, tokens) = (self.catalogue.now(), self.tokens.now());
        text.family("tollgate_global_catalogue_ads", "gauge", "Ads of the catalogue in force; 0: there is none.");
        text.line("", catalogue.ads() as f64);
        text.family("tollgate_global_catalogue_info", "gauge", "The version of the catalogue, a hash of its file.");
        if let Some(version) = catalogue.version() {
            text.line(&format!("{{version=\"{version}\"}}"), 1.0);
        }
        text.family(
            "tollgate_global_catalogue_loaded_timestamp_seconds",
            "gauge",
            "When the catalogue came into force.",
        );
        if catalogue.version().is_some() {
            text.line("", catalogue.loaded_ms() as f64 / 1e3);
        }
        text.family(
            "tollgate_global_catalogue_loads_total",
            "counter",
            "Catalogues that came into force since the start.",
        );
        text.line("", self.catalogue.reads() as f64);
        text.family(
            "tollgate_global_catalogue_broken",
            "gauge",
            "1: the file cannot be used, and an older one is in force.",
        );
        text.line("", f64::from(u8::from(self.catalogue.is_broken())));
        text.family(
            "tollgate_global_catalogue_mismatch_total",
            "counter",
            "Clicks that named another campaign, or advertiser, than the catalogue does.",
        );
        for (kind, clicks) in ["campaign", "advertiser"].into_iter().zip(self.catalogue.mismatches()) {
            text.line(&format!("{{kind=\"{kind}\"}}"), clicks as f64);
        }
        text.family("tollgate_global_tokens", "gauge", "Tokens of the query port.");
        for (state, revoked) in [("valid", false), ("revoked", true)] {
            let count = tokens.all().iter().filter(|token| token.is_revoked() == revoked).count();
            text.line(&format!("{{state=\"{state}\"}}"), count as f64);
        }
        text.family(
            "tollgate_global_tokens_broken",
            "gauge",
            "1: the file of tokens cannot be read; those of before hold.",
        );
        text.line("", f64::from(u8::from(self.tokens.is_broken())));
        text.family("tollgate_global_queries_refused_total", "counter", "Queries that were not let in, by reason.");
        for (why, count) in Refused::ALL.into_iter().zip(&self.refused) {
            text.line(&format!("{{reason=\"{}\"}}", why.name()), count.load(Ordering::Relaxed) as f64);
        }
        text.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Draft, RATE_DEFAULT};

    #[test]
    fn counts_are_not_everybodys_by_oversight() {
        let folder = tempfile::tempdir().expect("folder");
        let open = |listen: &str| {
            let listen = listen.parse().expect("an address");
            QuerySide::open(&QuerySideConfig { data_dir: folder.path().to_owned(), ads: None, listen })
        };
        for loopback in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert!(open(loopback).is_ok(), "{loopback}");
        }
        for open_to_all in ["0.0.0.0:8090", "[::]:8090", "10.0.0.1:1"] {
            let refused = open(open_to_all).err().expect("refused").to_string();
            assert!(refused.contains("tollgate token create") && refused.contains(open_to_all), "{refused}");
        }
        let draft = Draft { name: String::new(), scope: None, rate_per_s: RATE_DEFAULT };
        TokenFile::create(folder.path(), &draft, 1).expect("made");
        assert!(open("0.0.0.0:8090").is_ok());
    }
}

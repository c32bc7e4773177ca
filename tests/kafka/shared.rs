//! One broker for all tests of this binary that do not harm it, for each costs seconds and hundreds of megabytes.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use crate::broker::{Broker, Setup};
use crate::proxy::Proxy;

/// As many tests with a proxy run at once; others wait for one.
const PROXIES: usize = 8;

/// Where brokers' directories lie: on the disk of the checkout.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("target/tmp can be written")
}

/// Give topics and edges names of your own. It ends with this process.
pub fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        let folder = folder();
        let broker = Broker::start(folder.path(), &Setup { proxies: PROXIES, secured: true });
        // Nobody drops it: it removes its directory when this process ends.
        let _ = folder.keep();
        broker
    })
}

static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// One of the shared broker's proxies, for this test alone until it is dropped.
pub struct Lease(usize);

pub fn proxy() -> Lease {
    static FILLED: OnceLock<()> = OnceLock::new();
    FILLED.get_or_init(|| FREE.lock().unwrap_or_else(PoisonError::into_inner).extend(0..PROXIES));
    let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut free = GIVEN_BACK.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
    Lease(free.pop().expect("it was waited for"))
}

impl Deref for Lease {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        broker().proxy(self.0)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.clear();
        self.cut();
        self.resume();
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
        GIVEN_BACK.notify_one();
    }
}

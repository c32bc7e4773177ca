//! A store that several edges send to, served as `tollgate global` serves it; each edge can fall silent and come back.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio::sync::oneshot;
use tollgate::worker::wall_ms;
use tollgate_global::{
    Batch, Delivered, Hearing, Options, PANE_MS, Page, Place, QuerySide, QuerySideConfig, Store, TornTransaction, keep,
};

use crate::fixture::{partial, transaction};

const EVERY: Duration = Duration::from_millis(300);
/// Longer than a commit takes on a disk that others keep busy.
const IDLE_AFTER_MS: i64 = 6_000;
/// Behind the clock.
const WATERMARK_MS: i64 = 2_000;

pub struct Edges {
    pub query: SocketAddr,
    store: Arc<Store>,
    told: Sender<(String, bool)>,
    _stop: (oneshot::Sender<()>, Sender<()>),
    _folder: tempfile::TempDir,
}

impl Edges {
    pub fn serve(edge_ids: &[&str]) -> Edges {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("global.redb");
        let options = Options { idle_after_ms: IDLE_AFTER_MS, ..Options::default() };
        let store = Arc::new(Store::open_with(&path, options).expect("a new store"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let query = listener.local_addr().expect("bound");
        let side = QuerySideConfig { data_dir: folder.path().to_owned(), ads: None, listen: query };
        let side = Arc::new(QuerySide::open(&side).expect("no tokens, on the loopback"));
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&store);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(tollgate_global::serve(served, side, Page::default(), listener, stopped))
        });
        let (stop_keeper, keeper_stopped) = mpsc::channel();
        let kept = Arc::clone(&store);
        std::thread::spawn(move || keep(&kept, &path, &Arc::default(), &keeper_stopped));
        let (told, telling) = mpsc::channel();
        let sending: BTreeMap<String, bool> = edge_ids.iter().map(|id| ((*id).to_owned(), true)).collect();
        let fed = Arc::clone(&store);
        std::thread::spawn(move || feed(&fed, sending, &telling));
        Edges { query, store, told, _stop: (stop, stop_keeper), _folder: folder }
    }

    /// Whether an edge sends.
    pub fn tell(&self, edge_id: &str, sends: bool) {
        self.told.send((edge_id.to_owned(), sends)).expect("the edges are fed");
    }

    /// Kafka does not answer: nobody is heard from now on.
    pub fn go_deaf(&self) {
        let mut hearing = Hearing::since(wall_ms());
        hearing.others.is_deaf(wall_ms());
        self.store.set_hearing(hearing);
    }

    pub fn hear_again(&self) {
        self.store.set_hearing(Hearing::since(wall_ms()));
    }

    /// An edge of which nothing but a torn transaction ever came.
    pub fn tears(&self, edge_id: &str) {
        let place = Place { partition: 0, offset: 7 };
        let torn =
            TornTransaction { edge_id: edge_id.to_owned(), txn_seq: 1, place, why: "its end is not there".to_owned() };
        let (deliveries, offsets) = ([Delivered::Torn(torn)], BTreeMap::from([(0, 8)]));
        let batch = Batch { deliveries: &deliveries, offsets: &offsets, now_ms: wall_ms(), closing_cap_ms: None };
        self.store.apply(&batch).expect("committed");
    }
}

/// A transaction of each edge that sends, again and again, until nobody tells it anything any more.
fn feed(store: &Store, mut sending: BTreeMap<String, bool>, telling: &Receiver<(String, bool)>) {
    let mut sent: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let now_ms = wall_ms();
        let pane_ms = now_ms.div_euclid(PANE_MS) * PANE_MS;
        for (edge_id, _) in sending.iter().filter(|(_, sends)| **sends) {
            let partials = vec![partial("ad_1", pane_ms, 0, 3, &[1]), partial("ad_2", pane_ms, 1, 1, &[2])];
            let seq = sent.entry(edge_id.clone()).or_default();
            *seq += 1;
            let transaction = transaction(edge_id, *seq, now_ms - WATERMARK_MS, partials);
            store.commit(&transaction).expect("committed");
        }
        match telling.recv_timeout(EVERY) {
            Ok((edge_id, sends)) => drop(sending.insert(edge_id, sends)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

//! `tollgate global`: a consumer, a keeper, a query port and an admin port around one store, each on a thread of its own.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot;

use crate::admin::{self, Admin};
use crate::consumer::{Consumer, Stopped};
use crate::dashboard::Page;
use crate::directory::{self, STORE_FILE};
use crate::durable;
use crate::kafka::KafkaSettings;
use crate::keeper::{self, RoomSeen};
use crate::metrics::Meter;
use crate::query_side::{QuerySide, QuerySideConfig, QuerySideError};
use crate::store::{Options, Store};
use crate::tables::StoreError;

#[derive(Clone, Debug)]
pub struct ServiceConfig {
    pub data_dir: PathBuf,
    pub kafka: KafkaSettings,
    pub query_listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub store: Options,
    /// The file of the ad catalogue.
    pub ads: Option<PathBuf>,
    /// The store is put aside, and counted anew from all that the topic has.
    pub rebuild: bool,
    /// Where the topic does not have what is to be read next, it is read from the first that it has, into what is counted.
    pub from_earliest: bool,
    /// Partition and offset of records that no tollgate wrote: of a later version, they are torn, and do not end it.
    pub pass_over: BTreeSet<(i32, i64)>,
}

/// Why the service ended by itself, or did not begin; the variants say what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("cannot listen on {address}: {error}; name another address with {flag}")]
    Listen { flag: &'static str, address: SocketAddr, error: std::io::Error },
    /// In use by another process, or no directory that can be used, or names in it may not outlive a power cut.
    #[error("{0}")]
    DataDir(String),
    #[error("{0}")]
    Store(String),
    #[error("{0}")]
    Kafka(String),
    #[error(transparent)]
    QuerySide(#[from] QuerySideError),
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub query: SocketAddr,
    pub admin: SocketAddr,
}

/// What ended of itself.
enum Told {
    Consumer(Result<(), Stopped>),
    Keeper(Result<(), StoreError>),
}

/// Serves until `stop` gets something or its sender is gone; `ready` is called when questions are answered.
pub fn run(config: &ServiceConfig, stop: Receiver<()>, ready: impl FnOnce(Addresses)) -> Result<(), ServiceError> {
    directory::refusal(&config.data_dir).map_or(Ok(()), |why| Err(ServiceError::DataDir(why)))?;
    let (data_dir, ads) = (config.data_dir.clone(), config.ads.clone());
    let side = Arc::new(QuerySide::open(&QuerySideConfig { data_dir, ads, listen: config.query_listen })?);
    let (query, query_address) = listen("--query-listen", config.query_listen)?;
    let (admin_port, admin_address) = listen("--admin-listen", config.admin_listen)?;
    let path = store_path(config)?;
    // Before anything is counted: also where an earlier start made them, and was killed.
    durable::sync_names(&config.data_dir).map_err(|error| ServiceError::DataDir(error.to_string()))?;
    let store = Arc::new(Store::open_with(&path, config.store.clone()).map_err(|error| opening(&path, error))?);
    store.use_catalogue(side.catalogue.clone());
    let (meter, room) = (Arc::<Meter>::default(), Arc::<RoomSeen>::default());
    let (told, ended) = mpsc::channel();
    let stopping = Arc::new(AtomicBool::new(false));

    // Keeper and admin port commit, too.
    let consumer = Consumer::new(store.clone(), config.kafka.clone(), meter.clone(), stopping.clone());
    let consumer = if config.from_earliest { consumer.from_earliest() } else { consumer };
    let mut consumer = consumer.passing_over(config.pass_over.clone());
    consumer.begin().map_err(|error| failing(&path, &error))?;

    let (stop_queries, queries_stopped) = oneshot::channel();
    let (stop_admin, admin_stopped) = oneshot::channel();
    let (queried, let_in) = (store.clone(), side.clone());
    let admin = Admin { store: store.clone(), meter, room: room.clone(), side: side.clone() };
    let query_thread =
        serve("query", move || crate::http::serve(queried, let_in, Page::default(), query, queries_stopped))?;
    let admin_thread = serve("admin", move || admin::serve(admin, admin_port, admin_stopped))?;

    let (stop_keeper, keeper_stopped) = mpsc::channel();
    let (kept, keeper_told, keeper_path) = (store.clone(), told.clone(), path.clone());
    let keeper = spawn("keeper", move || {
        // The main thread may have ended first.
        let _ = keeper_told.send(Told::Keeper(keeper::keep(&kept, &keeper_path, &room, &keeper_stopped)));
    })?;
    let (stop_watch, watch_stopped) = mpsc::channel();
    let watch = spawn("files", move || side.watch(&watch_stopped))?;
    let consumer_told = told;
    let consumer = spawn("consumer", move || {
        let _ = consumer_told.send(Told::Consumer(consumer.run()));
    })?;
    watch_stop(stop, stopping.clone())?;
    ready(Addresses { query: query_address, admin: admin_address });

    let outcome = wait(&ended, &path);
    stopping.store(true, Ordering::Release);
    // Threads that ended have let go of their ends.
    let _ = (stop_keeper.send(()), stop_queries.send(()), stop_admin.send(()), stop_watch.send(()));
    for thread in [consumer, keeper, query_thread, admin_thread, watch] {
        // A panic on any thread has ended the process.
        let _ = thread.join();
    }
    outcome
}

/// Until the consumer ends, of itself or because it was told to; or the keeper does.
fn wait(ended: &Receiver<Told>, path: &Path) -> Result<(), ServiceError> {
    match ended.recv() {
        Ok(Told::Consumer(Ok(())) | Told::Keeper(Ok(()))) | Err(_) => Ok(()),
        Ok(Told::Consumer(Err(Stopped::Kafka(why)))) => Err(ServiceError::Kafka(why)),
        Ok(Told::Consumer(Err(Stopped::Store(error))) | Told::Keeper(Err(error))) => Err(failing(path, &error)),
    }
}

/// Passes the word to stop on to the consumer, whose end is waited for.
fn watch_stop(stop: Receiver<()>, stopping: Arc<AtomicBool>) -> Result<(), ServiceError> {
    spawn("stop", move || {
        // A sender that is gone means the same as its message.
        let _ = stop.recv();
        stopping.store(true, Ordering::Release);
    })?;
    Ok(())
}

fn store_path(config: &ServiceConfig) -> Result<PathBuf, ServiceError> {
    let named = |path: &Path, error: &std::io::Error| {
        ServiceError::DataDir(format!(
            "{}: {error}; name a directory that can be written with --data-dir",
            path.display()
        ))
    };
    fs::create_dir_all(&config.data_dir).map_err(|error| named(&config.data_dir, &error))?;
    let path = config.data_dir.join(STORE_FILE);
    if config.rebuild && path.exists() {
        // Opened, so that it is not taken from under a process that serves. Whatever else it is, it is put aside.
        let opened = Store::open_with(&path, config.store.clone());
        if let Err(error @ StoreError::Database(redb::Error::DatabaseAlreadyOpen)) = opened {
            return Err(opening(&path, error));
        }
        drop(opened);
        let aside = path.with_extension("before-rebuild");
        if aside.exists() {
            return Err(ServiceError::DataDir(format!(
                "--rebuild: {} is there, from another rebuild, and nothing was changed. Start without --rebuild to go on with the \
                 store that was begun then; or delete or move away whichever of the two is not to be kept",
                aside.display()
            )));
        }
        fs::rename(&path, &aside).map_err(|error| named(&path, &error))?;
        tracing::warn!("the store was put aside as {}; delete it when the new one is as it should be", aside.display());
    }
    Ok(path)
}

fn opening(path: &Path, error: StoreError) -> ServiceError {
    match error {
        StoreError::Database(redb::Error::DatabaseAlreadyOpen) => ServiceError::DataDir(format!(
            "{} is in use by another process; stop that, or name another --data-dir",
            path.display()
        )),
        error => ServiceError::Store(format!(
            "the store {}: {error}. Put a backup in its place (`tollgate restore`), or count anew from the topic with --rebuild",
            path.display()
        )),
    }
}

fn failing(path: &Path, error: &StoreError) -> ServiceError {
    ServiceError::Store(format!("the store {}: {error}", path.display()))
}

fn listen(flag: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServiceError> {
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr().map(|at| (listener, at)));
    bound.map_err(|error| ServiceError::Listen { flag, address, error })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServiceError> {
    Builder::new().name(name.to_owned()).spawn(body).map_err(ServiceError::Thread)
}

/// A port on a thread and a runtime of its own.
fn serve<F: Future<Output = std::io::Result<()>>>(
    name: &'static str,
    server: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<()>, ServiceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServiceError::Thread)?;
    spawn(name, move || {
        if let Err(error) = runtime.block_on(server()) {
            tracing::error!("the {name} port failed: {error}");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_does_not_take_the_place_of_the_one_before_it() {
        let folder = tempfile::tempdir().expect("folder");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let kafka = KafkaSettings {
            brokers: "a:1".to_owned(),
            topic: "t".to_owned(),
            properties: Vec::new(),
            unfinished_bytes_max: 1,
        };
        let config = ServiceConfig {
            data_dir: folder.path().to_owned(),
            kafka,
            query_listen: any,
            admin_listen: any,
            store: Options::default(),
            ads: None,
            rebuild: true,
            from_earliest: false,
            pass_over: BTreeSet::new(),
        };
        let (path, aside) = (folder.path().join("global.redb"), folder.path().join("global.before-rebuild"));
        fs::write(&path, "the first").expect("written");
        assert_eq!(store_path(&config).expect("put aside"), path);
        assert!(!path.exists() && fs::read(&aside).expect("there") == b"the first");
        assert_eq!(store_path(&config).expect("nothing to put aside"), path);
        fs::write(&path, "the second").expect("written");
        let refused = store_path(&config).expect_err("the first is there").to_string();
        assert!(refused.contains("global.before-rebuild is there"), "{refused}");
        let both = [&path, &aside].map(|path| fs::read(path).expect("there"));
        assert_eq!(both, [b"the second".to_vec(), b"the first".to_vec()]);
        store_path(&ServiceConfig { rebuild: false, ..config }).expect("it goes on with the second");
    }
}

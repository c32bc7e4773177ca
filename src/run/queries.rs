//! Drives. The query side of an edge with its own store: its port, and the files that say who may ask and whose clicks are whose.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use tokio::sync::oneshot;
use tollgate_global::{Page, QuerySide, QuerySideConfig, Store};

use crate::commands::query_side_exit;
use crate::config::{Config, SinkKind};
use crate::run::spawn;
use crate::start::Failure;

/// The threads end when this is dropped.
pub(super) struct Querying {
    _port: oneshot::Sender<()>,
    _files: Sender<()>,
}

/// Reads the files; None where another process answers queries.
pub(super) fn open(config: &Config) -> Result<Option<Arc<QuerySide>>, Failure> {
    match config.export.sink {
        SinkKind::Embedded => {}
        SinkKind::Kafka => return Ok(None),
    }
    let side = QuerySide::open(&side_of(config));
    let failed = |error| Failure { exit: query_side_exit(&error), text: error.to_string() };
    side.map(Arc::new).map(Some).map_err(failed)
}

/// Whether it could be opened.
pub fn check(config: &Config) -> Result<(), Failure> {
    match config.export.sink {
        SinkKind::Embedded => {}
        SinkKind::Kafka => return Ok(()),
    }
    let failed = |error| Failure { exit: query_side_exit(&error), text: error.to_string() };
    QuerySide::check(&side_of(config)).map_err(failed)
}

/// What of a configuration the query side is opened with.
fn side_of(config: &Config) -> QuerySideConfig {
    let ads = Some(config.ads.clone()).filter(|path| !path.as_os_str().is_empty());
    QuerySideConfig { data_dir: config.data_dir.clone(), ads, listen: config.query_listen }
}

/// Answers queries on a thread of its own, and looks after the files on another.
pub(super) fn serve(
    store: &Arc<Store>,
    side: &Arc<QuerySide>,
    page: Page,
    port: TcpListener,
) -> Result<Querying, Failure> {
    store.use_catalogue(Arc::clone(&side.catalogue));
    let (stop_port, port_stopped) = oneshot::channel();
    let (stop_files, files_stopped) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::unavailable("the query runtime"))?;
    let (store, guarded, watched) = (Arc::clone(store), Arc::clone(side), Arc::clone(side));
    spawn("query", move || {
        if let Err(error) = runtime.block_on(tollgate_global::serve(store, guarded, page, port, port_stopped)) {
            tracing::error!("the query port failed: {error}");
        }
    })?;
    spawn("files", move || watched.watch(&files_stopped))?;
    Ok(Querying { _port: stop_port, _files: stop_files })
}

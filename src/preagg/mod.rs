//! Pure. The open partials of a core: how many clicks of each (pane, dimensions) since the last cut.

pub mod key;
mod table;

pub use table::{Table, index_bytes, table_bytes};

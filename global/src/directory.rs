//! Drives. What a data directory is of, by what lies in it: an edge has its log and the store that it exports to, the global tier the
//! store that it consumes into. Tokens and the copy of a catalogue are either's.

use std::path::Path;

use crate::tokens::TOKENS_FILE;

/// The store of `tollgate global`, in a data directory.
pub const STORE_FILE: &str = "global.redb";
/// Each of them an edge alone makes, once it has served.
const OF_AN_EDGE: [&str; 3] = ["identity.toml", "store.redb", "exported.json"];

/// What lies in a directory that makes it an edge's.
pub fn of_an_edge(data_dir: &Path) -> Option<&'static str> {
    OF_AN_EDGE.into_iter().find(|name| data_dir.join(name).exists())
}

/// What lies in a directory that makes it the global tier's.
pub fn of_the_global_tier(data_dir: &Path) -> Option<&'static str> {
    Some(STORE_FILE).filter(|name| data_dir.join(name).exists())
}

/// Whether anything of tollgate ever ran on a directory, or tokens were made for it.
pub fn is_known(data_dir: &Path) -> bool {
    of_an_edge(data_dir).or(of_the_global_tier(data_dir)).is_some() || data_dir.join(TOKENS_FILE).exists()
}

/// Why the global tier does not take a directory, if it does not; nothing of it was changed.
pub fn refusal(data_dir: &Path) -> Option<String> {
    let lies_in_it = of_an_edge(data_dir)?;
    Some(format!(
        "{} is an edge's ({lies_in_it} lies in it), and the global tier has a directory of its own: name another with --data-dir",
        data_dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_by_what_lies_in_it() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, what) = (folder.path(), |path: &Path| (of_an_edge(path), of_the_global_tier(path), is_known(path)));
        assert_eq!(what(&path.join("none")), (None, None, false));
        assert_eq!(what(path), (None, None, false));
        for name in OF_AN_EDGE {
            std::fs::write(path.join(name), "").expect("written");
            assert_eq!(what(path), (Some(name), None, true));
            assert!(refusal(path).expect("an edge's").contains(name));
            std::fs::remove_file(path.join(name)).expect("removed");
        }
        for (name, of) in [(STORE_FILE, Some(STORE_FILE)), (TOKENS_FILE, None)] {
            std::fs::write(path.join(name), "").expect("written");
            assert_eq!((what(path), refusal(path)), ((None, of, true), None));
            std::fs::remove_file(path.join(name)).expect("removed");
        }
    }
}

//! What the host is set to: its NICs, interrupts, CPUs, memory, disks and sysctls. Readers of `/proc` and `/sys` below a root that
//! they are handed, so that tests show them hosts of every kind; what cannot be read is `None`, and nobody guesses it.

pub mod cpus;
pub mod disk;
pub mod ethtool;
pub mod irqs;
pub mod masks;
pub mod memory;
pub mod nic;
pub mod sysctls;

use std::fs;
use std::path::{Path, PathBuf};

/// Where `/proc` and `/sys` are.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// This host, as the calling thread sees it: of network devices those of its network namespace.
    pub fn of_host() -> Root {
        Root(PathBuf::from("/"))
    }

    pub fn under(path: &Path) -> Root {
        Root(path.to_owned())
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A file of one value, without the line's end.
    pub fn text(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.path(path)).ok()?.trim_end().to_owned())
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// What is in a folder; numbers in names in their order, so that `rx-10` comes after `rx-9`.
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| {
            let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
            let (word, number) = name.split_at(name.len() - digits);
            (word.to_owned(), number.parse::<u64>().unwrap_or(0))
        });
        names
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }
}

/// The word in brackets of `always [madvise] never`, as many files of `/sys` show a choice.
pub fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A made-up host: files by path and text.
    pub fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::under(folder.path());
        (folder, root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_their_numbers() {
        let (_folder, root) = testing::tree(&[("q/rx-10", ""), ("q/rx-9", ""), ("q/tx-0", ""), ("q/rx-0", "")]);
        assert_eq!(root.names("q"), ["rx-0", "rx-9", "rx-10", "tx-0"]);
        assert!(root.names("no").is_empty());
    }

    #[test]
    fn the_choice_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("none"), None);
    }
}

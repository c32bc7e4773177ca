//! Memory: huge pages, and the limits of this process that concern it.

use super::{Root, chosen};

/// 2 MiB pages that are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub pages: u64,
    pub free: u64,
}

pub const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";

/// `always`, `madvise` or `never`; `None`: the kernel was built without.
pub fn transparent_huge_pages(root: &Root) -> Option<String> {
    root.text(THP).and_then(|text| Some(chosen(&text)?.to_owned()))
}

pub fn huge_page_pool(root: &Root) -> Option<Pool> {
    let folder = "sys/kernel/mm/hugepages/hugepages-2048kB";
    let number = |name: &str| root.number(&format!("{folder}/{name}"));
    Some(Pool { pages: number("nr_hugepages")?, free: number("free_hugepages")? })
}

/// Of this process: how much of its memory lies in transparent huge pages.
pub fn in_huge_pages_bytes(root: &Root) -> Option<u64> {
    let text = root.text("proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

/// Soft and hard limit of this process; `None` within: not limited.
pub fn limit(root: &Root, name: &str) -> Option<(Option<u64>, Option<u64>)> {
    let text = root.text("proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut values = line.split_whitespace().map(|word| word.parse::<u64>().ok());
    Some((values.next()?, values.next()?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    #[test]
    fn pages_and_limits() {
        let (_folder, root) = tree(&[
            (THP, "always madvise [never]\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "60\n"),
            ("proc/self/smaps_rollup", "0-1 ---p 0 00:00 0 [rollup]\nRss: 1 kB\nAnonHugePages:      4096 kB\n"),
            (
                "proc/self/limits",
                "Limit  Soft Limit  Hard Limit  Units\nMax locked memory  65536  unlimited  bytes\nMax open files  1024  4096  files\n",
            ),
        ]);
        assert_eq!(transparent_huge_pages(&root).as_deref(), Some("never"));
        assert_eq!(huge_page_pool(&root), Some(Pool { pages: 64, free: 60 }));
        assert_eq!(in_huge_pages_bytes(&root), Some(4 << 20));
        assert_eq!(limit(&root, "Max locked memory"), Some((Some(65_536), None)));
        assert_eq!(limit(&root, "Max open files"), Some((Some(1024), Some(4096))));
    }

    #[test]
    fn a_kernel_without() {
        let (_folder, root) = tree(&[]);
        assert_eq!((transparent_huge_pages(&root), huge_page_pool(&root)), (None, None));
        assert_eq!((in_huge_pages_bytes(&root), limit(&root, "Max open files")), (None, None));
    }
}

//! The kernel's settings below `/proc/sys`, by their dotted names.

use super::Root;

/// The file of `net.core.somaxconn`.
pub fn path(name: &str) -> String {
    format!("proc/sys/{}", name.replace('.', "/"))
}

pub fn number(root: &Root, name: &str) -> Option<u64> {
    root.number(&path(name))
}

/// `32768 60999` of `net.ipv4.ip_local_port_range`.
pub fn local_ports(root: &Root) -> Option<(u16, u16)> {
    let text = root.text(&path("net.ipv4.ip_local_port_range"))?;
    let mut numbers = text.split_whitespace().map(|word| word.parse::<u16>().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Whether a port is among `22,4000-4010` of `net.ipv4.ip_local_reserved_ports`.
pub fn is_reserved(root: &Root, port: u16) -> bool {
    let text = root.text(&path("net.ipv4.ip_local_reserved_ports")).unwrap_or_default();
    text.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    #[test]
    fn numbers_and_ports() {
        let (_folder, root) = tree(&[
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "22,4000-4010\n"),
        ]);
        assert_eq!(number(&root, "net.core.somaxconn"), Some(128));
        assert_eq!(local_ports(&root), Some((32_768, 60_999)));
        let reserved = [22, 23, 3999, 4000, 4010, 4011].map(|port| is_reserved(&root, port));
        assert_eq!(reserved, [true, false, false, true, true, false]);
    }

    #[test]
    fn a_kernel_that_has_none_says_none() {
        let (_folder, root) = tree(&[("proc/sys/net/ipv4/ip_local_port_range", "many\n")]);
        assert_eq!((number(&root, "net.core.somaxconn"), local_ports(&root)), (None, None));
        assert!(!is_reserved(&root, 22));
    }
}

//! Sets of CPUs as the kernel writes them: lists (`0-3,8`), and hexadecimal masks, the highest first, in words of 32 bits
//! (`00000001,80000000`: CPUs 31 and 32).

/// The CPUs of a mask; `None` where it is none.
pub fn parse_mask(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for (word, digits) in text.trim().rsplit(',').enumerate() {
        if digits.is_empty() || digits.len() > 8 {
            return None;
        }
        let bits = u32::from_str_radix(digits, 16).ok()?;
        cpus.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 32 + bit));
    }
    Some(cpus)
}

/// The mask of some CPUs, with as many words as it takes.
pub fn format_mask(cpus: &[usize]) -> String {
    let words = cpus.iter().max().map_or(1, |most| most / 32 + 1);
    let mut bits = vec![0_u32; words];
    cpus.iter().for_each(|cpu| bits[cpu / 32] |= 1 << (cpu % 32));
    let mut text = format!("{:x}", bits[words - 1]);
    bits[..words - 1].iter().rev().for_each(|word| text += &format!(",{word:08x}"));
    text
}

/// `0-2,5`; the way back is `machine::parse_cpu_list`.
pub fn format_list(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => runs.push((*cpu, *cpu)),
        }
    }
    let run =
        |(first, last): &(usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::parse_cpu_list;

    #[test]
    fn masks_are_read_and_written_as_the_kernel_does() {
        for (text, cpus) in [
            ("0", vec![]),
            ("3", vec![0, 1]),
            ("80000000", vec![31]),
            ("1,00000000", vec![32]),
            ("1,80000001", vec![0, 31, 32]),
            ("8,00000000,00000004", vec![2, 67]),
        ] {
            assert_eq!(parse_mask(text), Some(cpus.clone()), "{text}");
            assert_eq!(format_mask(&cpus), text);
        }
        assert_eq!(parse_mask("00000000,00000003\n"), Some(vec![0, 1]), "padded, as it is read");
        for text in ["", "x", "1,,1", "123456789"] {
            assert_eq!(parse_mask(text), None, "{text}");
        }
    }

    #[test]
    fn lists_are_short_and_read_back() {
        for (cpus, text) in [(vec![], ""), (vec![3], "3"), (vec![0, 1, 2, 5, 7, 8], "0-2,5,7-8")] {
            assert_eq!(format_list(&cpus), text);
            assert_eq!(parse_cpu_list(text), (!cpus.is_empty()).then_some(cpus));
        }
    }
}

//! Pure. The few steps that are worth vector instructions, each with a safe twin that other machines use and that tests it.

/// The bytes of a UUID in its canonical text (8-4-4-4-12 hexadecimal digits of either case).
pub(super) fn uuid(text: &[u8; 36]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = 0;
    for (place, byte) in text.iter().enumerate() {
        if matches!(place, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = (*byte as char).to_digit(16)? as u8;
        bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
        digits += 1;
    }
    Some(bytes)
}

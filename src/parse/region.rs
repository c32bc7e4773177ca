//! Pure. The closed set of regions: ISO 3166-1 alpha-2 codes and the configured names, else `other`.
//!
//! Clients cannot make partial keys at will: whatever a click names folds to a member of this set. A configured name wins
//! (exact bytes); then two letters in any case, alone or before `-` (`us`, `US-CA`), fold to the country; else `other`.

use crate::click::REGION_BYTES_MAX;

/// What a click's region is called when it names one that is not in the set.
pub(super) const OTHER: &[u8] = b"other";

/// Every officially assigned ISO 3166-1 alpha-2 code, in order.
const CODES: &[u8; 498] = b"\
ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCGCHCICKCLCMCNCOCRCUCVCWCXCYCZDEDJDKDM\
DODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGMGNGPGQGRGSGTGUGWGYHKHMHNHRHTHUIDIEILIMINIOIQIRISITJEJMJOJPKEKGKHKIKMKN\
KPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZNANCNENFNGNINLNONPNRNUNZOMPAPEPFPGPHPKPLPM\
PNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSXSYSZTCTDTFTGTHTJTKTLTMTNTOTRTTTVTWTZUAUGUMUSUYUZVAVCVEVGVI\
VNVUWFWSYEYTZAZMZW";

/// Place of a code's pair in `CODES` plus one, by its two letters; 0 where there is no such country.
static PLACES: [u8; 26 * 26] = places();

const fn places() -> [u8; 26 * 26] {
    let mut table = [0; 26 * 26];
    let mut pair = 0;
    while pair < CODES.len() / 2 {
        let (first, second) = (CODES[2 * pair] - b'A', CODES[2 * pair + 1] - b'A');
        table[first as usize * 26 + second as usize] = pair as u8 + 1;
        pair += 1;
    }
    table
}

/// The set in force: the countries, and the configured names, sorted.
pub(super) struct Regions {
    names: Vec<Box<[u8]>>,
}

impl Regions {
    pub fn new(names: &[String]) -> Regions {
        let mut names: Vec<Box<[u8]>> = names.iter().map(|name| Box::from(name.as_bytes())).collect();
        for name in &names {
            assert!(
                !name.is_empty() && name.len() <= REGION_BYTES_MAX,
                "a configured region is 1-{REGION_BYTES_MAX} B"
            );
        }
        names.sort_unstable();
        Regions { names }
    }

    /// The member of the set that `text` counts as. `text` is not empty.
    #[inline]
    pub fn fold(&self, text: &[u8]) -> &[u8] {
        if !self.names.is_empty()
            && let Ok(place) = self.names.binary_search_by(|name| (**name).cmp(text))
        {
            return &self.names[place];
        }
        match text {
            [first, second] | [first, second, b'-', ..] => country(*first, *second).unwrap_or(OTHER),
            _ => OTHER,
        }
    }
}

#[inline]
fn country(first: u8, second: u8) -> Option<&'static [u8]> {
    let letter = |byte: u8| (byte | 0x20).wrapping_sub(b'a');
    let (first, second) = (letter(first), letter(second));
    if first >= 26 || second >= 26 {
        return None;
    }
    match PLACES[first as usize * 26 + second as usize] {
        0 => None,
        place => Some(&CODES[2 * (place as usize - 1)..2 * place as usize]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_folds_to_itself_and_nothing_else_does() {
        let regions = Regions::new(&[]);
        let mut found = 0;
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let text = [first, second];
                if regions.fold(&text) == text {
                    assert!(CODES.as_chunks::<2>().0.contains(&text), "{text:?} is not assigned");
                    found += 1;
                }
            }
        }
        assert_eq!(found, 249, "ISO 3166-1 assigns 249 codes");
        assert!(CODES.as_chunks::<2>().0.is_sorted(), "in order, so none is there twice");
    }

    #[test]
    fn texts_fold_into_the_set() {
        let regions = Regions::new(&["emea".to_owned(), "US-NY".to_owned(), "DE".to_owned()]);
        for (text, folded) in [
            ("US", "US"),
            ("us", "US"),
            ("uS", "US"),
            ("US-CA", "US"),
            ("us-ca", "US"),
            ("US-", "US"),
            ("US-NY", "US-NY"),
            ("us-ny", "US"),
            ("emea", "emea"),
            ("EMEA", "other"),
            ("DE", "DE"),
            ("XX", "other"),
            ("UK", "other"),
            ("USA", "other"),
            ("U", "other"),
            ("US_CA", "other"),
            ("@A", "other"),
            ("[a", "other"),
            ("other", "other"),
            ("\u{dc}S", "other"),
        ] {
            assert_eq!(regions.fold(text.as_bytes()), folded.as_bytes(), "{text}");
        }
    }
}

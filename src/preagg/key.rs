//! Pure. The bytes of a partial's key: the dimensions of a click as its record holds them, compared and hashed as one slice.
//!
//! ```text
//! 0 class  1 device  2 agent  3 rules  4 region_len  5 ad_len  6 campaign_len  7 advertiser_len | region | ad | campaign | advertiser
//! ```

use crate::click::{
    AD_ID_BYTES_MAX, ADVERTISER_ID_BYTES_MAX, Agent, CAMPAIGN_ID_BYTES_MAX, Class, Device, REGION_BYTES_MAX,
};

/// Bytes before the text.
pub const HEAD_BYTES: usize = 8;

/// The longest key that a click within its bounds can have.
pub const KEY_BYTES_MAX: usize =
    HEAD_BYTES + REGION_BYTES_MAX + AD_ID_BYTES_MAX + CAMPAIGN_ID_BYTES_MAX + ADVERTISER_ID_BYTES_MAX;

/// The dimensions that clicks are counted by, borrowed from a key's bytes. Absent text is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialKey<'a> {
    pub class: Class,
    pub device: Device,
    pub agent: Agent,
    /// Version of the rule set that decided the class.
    pub rules: u8,
    pub region: &'a str,
    pub ad_id: &'a str,
    pub campaign_id: &'a str,
    pub advertiser_id: &'a str,
}

/// Why bytes are not a partial's key. Our own encoder never makes such; from a log they mean damage or a newer version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "a partial key of {bytes} bytes, but its head says {expected}; the log is damaged or was written by a newer version"
    )]
    Length { bytes: usize, expected: usize },
    #[error("a partial key with unknown {what} code {code}; the log was written by a newer version of tollgate")]
    Code { what: &'static str, code: u8 },
    #[error("a partial key whose {what} is not UTF-8; the log is damaged")]
    Text { what: &'static str },
}

impl<'a> PartialKey<'a> {
    /// Reads a key. Total: any bytes give a key or an error.
    pub fn decode(bytes: &'a [u8]) -> Result<PartialKey<'a>, KeyError> {
        let Some((head, text)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(KeyError::Length { bytes: bytes.len(), expected: HEAD_BYTES });
        };
        let [class, device, agent, rules, region, ad, campaign, advertiser] = *head;
        let lengths = [region, ad, campaign, advertiser].map(usize::from);
        let expected = lengths.iter().sum::<usize>();
        if text.len() != expected {
            return Err(KeyError::Length { bytes: bytes.len(), expected: HEAD_BYTES + expected });
        }
        let (region, rest) = text.split_at(lengths[0]);
        let (ad, rest) = rest.split_at(lengths[1]);
        let (campaign, advertiser) = rest.split_at(lengths[2]);
        Ok(PartialKey {
            class: Class::from_code(class).ok_or(KeyError::Code { what: "class", code: class })?,
            device: Device::from_code(device).ok_or(KeyError::Code { what: "device", code: device })?,
            agent: Agent::from_code(agent).ok_or(KeyError::Code { what: "agent", code: agent })?,
            rules,
            region: utf8(region, "region")?,
            ad_id: utf8(ad, "ad_id")?,
            campaign_id: utf8(campaign, "campaign_id")?,
            advertiser_id: utf8(advertiser, "advertiser_id")?,
        })
    }

    /// Appends the key's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let texts = [self.region, self.ad_id, self.campaign_id, self.advertiser_id];
        out.extend_from_slice(&[self.class as u8, self.device as u8, self.agent as u8, self.rules]);
        for text in texts {
            assert!(
                text.len() <= usize::from(u8::MAX),
                "a dimension of {} bytes was not bounded when parsed",
                text.len()
            );
            out.push(text.len() as u8);
        }
        for text in texts {
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, KeyError> {
    std::str::from_utf8(bytes).map_err(|_| KeyError::Text { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: PartialKey<'static> = PartialKey {
        class: Class::BotUserAgent,
        device: Device::Tablet,
        agent: Agent::Firefox,
        rules: 1,
        region: "DE",
        ad_id: "ad_1",
        campaign_id: "",
        advertiser_id: "acme",
    };

    #[test]
    fn the_bytes_are_the_records_bytes() {
        let mut bytes = Vec::new();
        KEY.encode(&mut bytes);
        assert_eq!(bytes, b"\x01\x03\x03\x01\x02\x04\x00\x04DEad_1acme");
        assert_eq!(PartialKey::decode(&bytes), Ok(KEY));
    }

    #[test]
    fn wrong_bytes_are_named() {
        let cases: [(&[u8], KeyError); 6] = [
            (b"", KeyError::Length { bytes: 0, expected: 8 }),
            (b"\0\0\0\x01\0\x01\0\0", KeyError::Length { bytes: 8, expected: 9 }),
            (b"\0\0\0\x01\0\x01\0\0ab", KeyError::Length { bytes: 10, expected: 9 }),
            (b"\x03\0\0\x01\0\0\0\0", KeyError::Code { what: "class", code: 3 }),
            (b"\0\x07\0\x01\0\0\0\0", KeyError::Code { what: "device", code: 7 }),
            (b"\0\0\0\x01\0\x01\0\0\xff", KeyError::Text { what: "ad_id" }),
        ];
        for (bytes, error) in cases {
            assert_eq!(PartialKey::decode(bytes), Err(error));
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(0u8..10, 0..32)) {
            if let Ok(key) = PartialKey::decode(&bytes) {
                let mut again = Vec::new();
                key.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}

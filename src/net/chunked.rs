//! Pure. The chunked transfer coding of RFC 9112, section 7.1, byte by byte where it is framing and in runs where it is data.
//!
//!     size in hex [;extensions] CR LF | that many bytes | CR LF | … | 0 CR LF | trailer fields | CR LF

use super::fault::Fault;
use super::http::{is_name_byte, is_value_byte};

/// Where in the coding the next byte lies. Nothing of the framing is ever kept but this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the first digit of a size.
    Size,
    SizeDigits,
    /// Blanks after a size: only an extension may follow them.
    SizeBlank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

/// The state of one chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    /// Of the chunk at hand: its size while that is read, then what is still to come of it.
    left: u64,
    /// Sizes of all chunks so far.
    body_bytes: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    trailer_fields: u32,
}

/// The bounds of one chunked body.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLimits {
    pub body_bytes_max: u32,
    /// Of all extensions together; of all trailers together.
    pub head_bytes_max: u32,
    pub headers_max: u32,
}

/// What the next bytes are: `framing` bytes to drop, then `data` bytes of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPiece {
    pub framing: usize,
    pub data: usize,
    pub last: bool,
}

impl Default for Chunked {
    fn default() -> Chunked {
        Chunked { at: At::Size, left: 0, body_bytes: 0, extension_bytes: 0, trailer_bytes: 0, trailer_fields: 0 }
    }
}

impl Chunked {
    /// Reads up to the end of the next run of data, or of `source`, or of the body (`last`).
    pub fn next(&mut self, source: &[u8], limits: &ChunkLimits) -> Result<ChunkPiece, Fault> {
        let mut framing = 0;
        while self.at != At::Data {
            if self.at == At::End {
                return Ok(ChunkPiece { framing, data: 0, last: true });
            }
            let Some(&byte) = source.get(framing) else { return Ok(ChunkPiece { framing, data: 0, last: false }) };
            framing += 1;
            self.at = self.after(byte, limits)?;
        }
        let here = source.len() - framing;
        let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(here);
        self.left -= data as u64;
        if self.left == 0 {
            self.at = At::DataCr;
        }
        Ok(ChunkPiece { framing, data, last: false })
    }

    fn after(&mut self, byte: u8, limits: &ChunkLimits) -> Result<At, Fault> {
        match self.at {
            At::Size | At::SizeDigits => self.after_size(byte, limits),
            At::SizeBlank => match byte {
                b' ' | b'\t' => self.count_extension(limits, At::SizeBlank),
                b';' => self.count_extension(limits, At::Extension),
                _ => Err(Fault::ChunkSize),
            },
            At::Extension => match byte {
                b'\r' => Ok(At::SizeLf),
                b'\n' => Err(Fault::BareLf),
                _ if is_value_byte(byte) => self.count_extension(limits, At::Extension),
                _ => Err(Fault::ControlByte),
            },
            At::SizeLf => match byte {
                b'\n' if self.left == 0 => Ok(At::TrailerStart),
                b'\n' => Ok(At::Data),
                _ => Err(Fault::BareCr),
            },
            At::DataCr => {
                if byte == b'\r' {
                    Ok(At::DataLf)
                } else {
                    Err(Fault::ChunkEnd)
                }
            }
            At::DataLf => {
                if byte == b'\n' {
                    Ok(At::Size)
                } else {
                    Err(Fault::ChunkEnd)
                }
            }
            At::TrailerStart | At::TrailerName | At::TrailerValue | At::TrailerLf | At::LastLf => {
                self.after_trailer(byte, limits)
            }
            At::Data | At::End => unreachable!("data and the end are handled where they are met"),
        }
    }

    fn after_size(&mut self, byte: u8, limits: &ChunkLimits) -> Result<At, Fault> {
        if let Some(digit) = (byte as char).to_digit(16) {
            if self.at == At::Size {
                self.left = 0;
            } else if self.left == 0 {
                // Leading zeros are legal and useless: they count as an extension, so they are bounded like one.
                self.count_extension(limits, At::SizeDigits)?;
            }
            // The room left is at most 2^32, so this cannot overflow before it is refused.
            self.left = self.left * 16 + u64::from(digit);
            if self.body_bytes + self.left > u64::from(limits.body_bytes_max) {
                return Err(Fault::BodyTooLarge { limit: limits.body_bytes_max });
            }
            return Ok(At::SizeDigits);
        }
        if self.at == At::Size {
            return Err(Fault::ChunkSize);
        }
        let next = match byte {
            b'\r' => At::SizeLf,
            b';' => self.count_extension(limits, At::Extension)?,
            b' ' | b'\t' => self.count_extension(limits, At::SizeBlank)?,
            _ => return Err(Fault::ChunkSize),
        };
        self.body_bytes += self.left;
        Ok(next)
    }

    fn count_extension(&mut self, limits: &ChunkLimits, next: At) -> Result<At, Fault> {
        self.extension_bytes += 1;
        if self.extension_bytes > limits.head_bytes_max {
            return Err(Fault::ChunkExtension { limit: limits.head_bytes_max });
        }
        Ok(next)
    }

    /// Trailers are held to the rules of header fields and dropped: nothing that they could say is believed.
    fn after_trailer(&mut self, byte: u8, limits: &ChunkLimits) -> Result<At, Fault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > limits.head_bytes_max {
            return Err(Fault::HeadTooLong { limit: limits.head_bytes_max });
        }
        match (self.at, byte) {
            (At::TrailerStart, b'\r') => Ok(At::LastLf),
            (At::TrailerStart, b' ' | b'\t') => Err(Fault::Folded),
            (At::TrailerStart, _) if is_name_byte(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > limits.headers_max {
                    return Err(Fault::TooManyFields { limit: limits.headers_max });
                }
                Ok(At::TrailerName)
            }
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerName, b' ' | b'\t') => Err(Fault::SpaceBeforeColon),
            (At::TrailerName, _) if is_name_byte(byte) => Ok(At::TrailerName),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, _) if is_value_byte(byte) => Ok(At::TrailerValue),
            (At::TrailerLf, b'\n') => Ok(At::TrailerStart),
            (At::LastLf, b'\n') => Ok(At::End),
            (At::TrailerLf | At::LastLf, _) => Err(Fault::BareCr),
            (_, b'\n') => Err(Fault::BareLf),
            (At::TrailerValue, _) => Err(Fault::ControlByte),
            _ => Err(Fault::FieldName),
        }
    }
}

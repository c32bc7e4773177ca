//! Pure. The head of a request, strictly by RFC 9112, one line after the other as lines become whole.
//!
//! The verdict on a head depends on its whole lines in order and on nothing else, so however its bytes were split, the same
//! head gets the same answer. Whatever could make two readers disagree about where a request ends is refused.

use super::fault::Fault;
use super::media::{self, BodyFormat};
use crate::config::HttpConfig;

/// The only resource.
const CLICKS_PATH: &[u8] = b"/v1/clicks";

/// How a request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
}

/// What the core needs to know of a request of clicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    pub format: BodyFormat,
    /// The browser said that it only fetches ahead.
    pub prefetch: bool,
}

/// A whole head, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Clicks to be taken, or why not; the framing below holds for both.
    pub clicks: Result<RequestInfo, Fault>,
    pub framing: Framing,
    /// Nothing follows this request: HTTP/1.0, or `Connection: close`.
    pub close: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The answer must have no body.
    pub head_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Post,
    Head,
    Known,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expectation {
    None,
    Continue,
    Other,
}

/// The lines of a head so far.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: usize,
    fields: u32,
    request_line_read: bool,
    /// An empty line is forgiven here; it is no part of the head.
    may_be_blank: bool,
    method: Method,
    is_clicks_path: bool,
    is_old_version: bool,
    host_read: bool,
    length: Option<u64>,
    /// Where in the head the digits of Content-Length lie: what may differ in a remembered head.
    length_digits: (usize, usize),
    coding: Option<Coding>,
    content_type: Option<Result<BodyFormat, Fault>>,
    is_coded: bool,
    expectation: Expectation,
    prefetch: bool,
    close: bool,
}

impl Head {
    /// `may_be_blank`: an empty line before the request line is forgiven.
    pub fn begin(may_be_blank: bool) -> Head {
        Head {
            bytes: 0,
            fields: 0,
            request_line_read: false,
            may_be_blank,
            method: Method::Unknown,
            is_clicks_path: false,
            is_old_version: false,
            host_read: false,
            length: None,
            length_digits: (0, 0),
            coding: None,
            content_type: None,
            is_coded: false,
            expectation: Expectation::None,
            prefetch: false,
            close: false,
        }
    }

    /// Whether `torn` more bytes without an end of line still fit.
    pub fn check_room(&self, torn: usize, limits: &HttpConfig) -> Result<(), Fault> {
        if self.bytes + torn <= limits.head_bytes_max as usize {
            return Ok(());
        }
        let limit = limits.head_bytes_max;
        Err(if self.request_line_read { Fault::HeadTooLong { limit } } else { Fault::TargetTooLong { limit } })
    }

    /// Reads one line, its LF included. `true`: it was the empty line that ends the head.
    pub fn read_line(&mut self, line: &[u8], limits: &HttpConfig) -> Result<bool, Fault> {
        self.check_room(line.len(), limits)?;
        let start = self.bytes;
        self.bytes += line.len();
        let Some(text) = line.strip_suffix(b"\r\n") else { return Err(Fault::BareLf) };
        if let Some(&bad) = text.iter().find(|&&byte| !is_value_byte(byte)) {
            return Err(if bad == b'\r' { Fault::BareCr } else { Fault::ControlByte });
        }
        if !self.request_line_read {
            if text.is_empty() && self.may_be_blank {
                self.bytes = 0;
                return Ok(false);
            }
            self.request_line_read = true;
            return self.read_request_line(text).map(|()| false);
        }
        if text.is_empty() {
            return Ok(true);
        }
        self.fields += 1;
        if self.fields > limits.headers_max {
            return Err(Fault::TooManyFields { limit: limits.headers_max });
        }
        self.read_field(text, start)?;
        Ok(false)
    }

    fn read_request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::RequestLine);
        };
        if method.is_empty() || !method.iter().all(|&byte| is_name_byte(byte)) {
            return Err(Fault::RequestLine);
        }
        self.method = match method {
            b"POST" => Method::Post,
            b"HEAD" => Method::Head,
            b"GET" | b"PUT" | b"DELETE" | b"CONNECT" | b"OPTIONS" | b"TRACE" | b"PATCH" => Method::Known,
            _ => Method::Unknown,
        };
        let [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = version else {
            return Err(Fault::RequestLine);
        };
        if *major != b'1' {
            return Err(Fault::Version);
        }
        self.is_old_version = *minor == b'0';
        self.is_clicks_path = match path_of(target) {
            Some(path) => path == CLICKS_PATH,
            // `OPTIONS *` and `CONNECT host:port` name no resource; their method is refused, not their target.
            None if target == b"*" && method == b"OPTIONS" => true,
            None if method == b"CONNECT" && !target.is_empty() => true,
            None => return Err(Fault::Target),
        };
        Ok(())
    }

    /// `start`: where in the head this line begins.
    fn read_field(&mut self, line: &[u8], start: usize) -> Result<(), Fault> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Fault::Folded);
        }
        let Some(colon) = memchr::memchr(b':', line) else { return Err(Fault::FieldName) };
        let name = &line[..colon];
        if matches!(name.last(), Some(b' ' | b'\t')) {
            return Err(Fault::SpaceBeforeColon);
        }
        if name.is_empty() || !name.iter().all(|&byte| is_name_byte(byte)) {
            return Err(Fault::FieldName);
        }
        let untrimmed = &line[colon + 1..];
        let value = untrimmed.trim_ascii();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"host") => self.read_host(value)?,
            6 if is(b"expect") => {
                let met = value.eq_ignore_ascii_case(b"100-continue") && self.expectation != Expectation::Other;
                self.expectation = if met { Expectation::Continue } else { Expectation::Other };
            }
            7 if is(b"purpose") => self.prefetch |= media::is_prefetch(value),
            10 if is(b"connection") => self.close |= media::lists(value, b"close"),
            11 if is(b"sec-purpose") => self.prefetch |= media::is_prefetch(value),
            12 if is(b"content-type") => self.read_type(value)?,
            14 if is(b"content-length") => {
                let blanks = untrimmed.len() - untrimmed.trim_ascii_start().len();
                let at = start + colon + 1 + blanks;
                self.read_length(value, at)?;
            }
            16 if is(b"content-encoding") => self.is_coded |= !value.eq_ignore_ascii_case(b"identity"),
            17 if is(b"transfer-encoding") => self.read_coding(value)?,
            _ => {}
        }
        Ok(())
    }

    fn read_host(&mut self, value: &[u8]) -> Result<(), Fault> {
        if std::mem::replace(&mut self.host_read, true) {
            return Err(Fault::HostRepeated);
        }
        let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(byte);
        if value.iter().all(is_host) { Ok(()) } else { Err(Fault::HostInvalid) }
    }

    fn read_type(&mut self, value: &[u8]) -> Result<(), Fault> {
        match self.content_type.replace(media::body_format(value)) {
            None => Ok(()),
            Some(_) => Err(Fault::TypeRepeated),
        }
    }

    fn read_length(&mut self, value: &[u8], at: usize) -> Result<(), Fault> {
        if self.length.is_some() {
            return Err(Fault::LengthRepeated);
        }
        if self.coding.is_some() {
            return Err(Fault::LengthAndCoding);
        }
        self.length = Some(decimal(value).ok_or(Fault::LengthInvalid)?);
        self.length_digits = (at, at + value.len());
        Ok(())
    }

    fn read_coding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.coding.is_some() || value.is_empty() {
            return Err(Fault::CodingRepeated);
        }
        if self.length.is_some() {
            return Err(Fault::LengthAndCoding);
        }
        if self.is_old_version {
            return Err(Fault::CodingInOldVersion);
        }
        // Names of codings have no case: RFC 9112, section 7.
        let chunked = value.eq_ignore_ascii_case(b"chunked");
        self.coding = Some(if chunked { Coding::Chunked } else { Coding::Other });
        Ok(())
    }

    /// Judges the head once its last line was read. An error: where the request ends is not known, nothing more is read.
    pub fn judge(&self, limits: &HttpConfig) -> Result<Request, Fault> {
        if !self.host_read && !self.is_old_version {
            return Err(Fault::HostMissing);
        }
        let framing = match (self.length, self.coding) {
            (_, Some(Coding::Chunked)) => Framing::Chunked,
            (_, Some(Coding::Other)) => return Err(Fault::Coding),
            (Some(length), None) => Framing::Length(length),
            (None, None) => Framing::Length(0),
        };
        let is_unframed = self.length.is_none() && self.coding.is_none();
        if let Framing::Length(length) = framing
            && length > u64::from(limits.body_bytes_max)
        {
            return Err(Fault::BodyTooLarge { limit: limits.body_bytes_max });
        }
        Ok(Request {
            clicks: self.judge_clicks(is_unframed),
            framing,
            close: self.close || self.is_old_version,
            expects_continue: self.expectation == Expectation::Continue && !self.is_old_version,
            head_only: self.is_head_method(),
        })
    }

    fn judge_clicks(&self, is_unframed: bool) -> Result<RequestInfo, Fault> {
        if self.method == Method::Unknown {
            return Err(Fault::UnknownMethod);
        }
        if !self.is_clicks_path {
            return Err(Fault::NotFound);
        }
        if self.method != Method::Post {
            return Err(Fault::Method);
        }
        if is_unframed {
            return Err(Fault::LengthRequired);
        }
        if self.expectation == Expectation::Other {
            return Err(Fault::Expectation);
        }
        if self.is_coded {
            return Err(Fault::ContentCoding);
        }
        let format = self.content_type.unwrap_or(Err(Fault::MediaType))?;
        Ok(RequestInfo { format, prefetch: self.prefetch })
    }

    /// Whether no line of it was read yet.
    pub fn is_untouched(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the request line asked for an answer without a body.
    pub fn is_head_method(&self) -> bool {
        self.method == Method::Head
    }

    /// Where the digits of Content-Length lie in the head, where the next head may be compared with this one.
    pub fn length_digits(&self) -> Option<(usize, usize)> {
        self.length.is_some().then_some(self.length_digits)
    }
}

/// The path of a request target in origin form or absolute form, without its query.
fn path_of(target: &[u8]) -> Option<&[u8]> {
    if target.iter().any(|&byte| !byte.is_ascii_graphic() || byte == b'#') {
        return None;
    }
    let rest = match target.first() {
        Some(b'/') => target,
        _ => {
            let colon = memchr::memchr(b':', target)?;
            let scheme = &target[..colon];
            let authority = target[colon..].strip_prefix(b"://")?;
            if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
                return None;
            }
            let end = authority.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(authority.len());
            if end == 0 {
                return None;
            }
            &authority[end..]
        }
    };
    let end = memchr::memchr(b'?', rest).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// One plain decimal number; one beyond `u64` reads as its greatest, which every limit refuses.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let append = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, append))
}

/// `tchar` of RFC 9110, section 5.6.2.
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field value may hold: visible text, blanks, and bytes beyond ASCII.
pub fn is_value_byte(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

//! Pure. What a request's header fields say about its body, beyond how long it is: its format, charset and coding.

use super::fault::Fault;

/// How the clicks of a body are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`: one object, or an array of them.
    Json,
    /// `application/x-ndjson`: one object a line.
    Ndjson,
    /// `text/plain`: either, as a browser's sendBeacon sends it.
    Text,
}

/// Reads the value of a Content-Type field, trimmed.
pub fn body_format(value: &[u8]) -> Result<BodyFormat, Fault> {
    let mut parts = value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let media_type = parts.next().unwrap_or_default();
    let format = if media_type.eq_ignore_ascii_case(b"application/json") {
        BodyFormat::Json
    } else if media_type.eq_ignore_ascii_case(b"application/x-ndjson") {
        BodyFormat::Ndjson
    } else if media_type.eq_ignore_ascii_case(b"text/plain") {
        BodyFormat::Text
    } else {
        return Err(Fault::MediaType);
    };
    for parameter in parts {
        let Some(equals) = memchr::memchr(b'=', parameter) else { continue };
        if parameter[..equals].eq_ignore_ascii_case(b"charset") && !is_utf8_name(&parameter[equals + 1..]) {
            return Err(Fault::Charset);
        }
    }
    Ok(format)
}

/// US-ASCII is a part of UTF-8.
fn is_utf8_name(value: &[u8]) -> bool {
    let name = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    name.eq_ignore_ascii_case(b"utf-8") || name.eq_ignore_ascii_case(b"utf8") || name.eq_ignore_ascii_case(b"us-ascii")
}

/// Whether a Sec-Purpose or Purpose field says that the browser only fetches ahead: `prefetch`, `prefetch;prerender`.
pub fn is_prefetch(value: &[u8]) -> bool {
    value.split(|&byte| matches!(byte, b';' | b',' | b' ')).any(|word| word.eq_ignore_ascii_case(b"prefetch"))
}

/// Whether a comma-separated field value lists this word, whatever its case.
pub fn lists(value: &[u8], word: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (value, expected) in [
            ("application/json", Ok(BodyFormat::Json)),
            ("Application/JSON ; charset=UTF-8", Ok(BodyFormat::Json)),
            ("application/json;charset=\"utf-8\"; profile=x", Ok(BodyFormat::Json)),
            ("application/x-ndjson", Ok(BodyFormat::Ndjson)),
            ("text/plain;charset=UTF-8", Ok(BodyFormat::Text)),
            ("text/plain; format=flowed", Ok(BodyFormat::Text)),
            ("application/json; charset=utf-16", Err(Fault::Charset)),
            ("text/plain; charset=iso-8859-1", Err(Fault::Charset)),
            ("application/jsonx", Err(Fault::MediaType)),
            ("application/json, text/plain", Err(Fault::MediaType)),
            ("text/html", Err(Fault::MediaType)),
            ("multipart/form-data; boundary=x", Err(Fault::MediaType)),
            ("", Err(Fault::MediaType)),
            (";", Err(Fault::MediaType)),
        ] {
            assert_eq!(body_format(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn purposes() {
        for (value, expected) in [
            ("prefetch", true),
            ("Prefetch;prerender", true),
            ("prefetch; anonymous-client-ip", true),
            ("prerender", false),
            ("prefetcher", false),
            ("", false),
        ] {
            assert_eq!(is_prefetch(value.as_bytes()), expected, "{value}");
        }
    }
}

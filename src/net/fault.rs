//! Pure. Every way a request is refused as a whole: its status, its sentence for a person, and whether the connection can
//! go on after it.

use crate::metrics::Shed;

/// A request refused as a whole: nothing of it was taken. The text of each says what was wrong and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("A line of the request ends in LF alone. End every line with CR LF.")]
    BareLf,
    #[error("A line of the request holds a CR that no LF follows. End every line with CR LF and send no CR elsewhere.")]
    BareCr,
    #[error("The request's head holds a NUL or another control byte. Send visible text, spaces and tabs only.")]
    ControlByte,
    #[error("The request line is not `METHOD TARGET HTTP/1.1` with one space between its parts.")]
    RequestLine,
    #[error("The request target is neither a path such as `/v1/clicks` nor an absolute http URL.")]
    Target,
    #[error("A header field has no colon, or no name, or a byte in its name that names may not have.")]
    FieldName,
    #[error("A header field has a space before its colon. Write `Name: value`.")]
    SpaceBeforeColon,
    #[error("A header field is folded over two lines. Write each field on one line.")]
    Folded,
    #[error("The Host field is missing. Name the host once: `Host: example.com`.")]
    HostMissing,
    #[error("The Host field is there more than once. Send it once.")]
    HostRepeated,
    #[error("The Host field is not a host name with an optional port.")]
    HostInvalid,
    #[error("The Content-Length field is there more than once. Send it once.")]
    LengthRepeated,
    #[error("The Content-Length field is not one plain decimal number.")]
    LengthInvalid,
    #[error("Content-Length and Transfer-Encoding are both there. Send one of them.")]
    LengthAndCoding,
    #[error("The Transfer-Encoding field is there more than once, or empty. Send `Transfer-Encoding: chunked` once.")]
    CodingRepeated,
    #[error("HTTP/1.0 knows no Transfer-Encoding. Send a Content-Length, or speak HTTP/1.1.")]
    CodingInOldVersion,
    #[error("The Content-Type field is there more than once. Send it once.")]
    TypeRepeated,
    #[error("A chunk does not begin with its size in hexadecimal digits on a line of its own.")]
    ChunkSize,
    #[error("A chunk's bytes are not followed by CR LF: its size does not match what was sent.")]
    ChunkEnd,
    #[error("The chunk extensions are longer than {limit} bytes together. Send chunks without extensions.")]
    ChunkExtension { limit: u32 },
    #[error("The request holds no click. Send at least one.")]
    NoClicks,
    #[error("This server already has its limit of {limit} connections. Send the request again on a later connection.")]
    TooManyConnections { limit: u32 },
    #[error("The body cannot be read: {why}. Send one object, an array of objects, or one object a line.")]
    Document { why: &'static str },
    #[error("There is nothing here. Clicks are sent to /v1/clicks.")]
    NotFound,
    #[error("Only POST is understood here. Send clicks with `POST /v1/clicks`.")]
    Method,
    #[error("The request's head was not complete within {limit_ms} ms. Send it without pauses.")]
    HeadTimeout { limit_ms: u64 },
    #[error("The request's body was not complete within {limit_ms} ms. Send it faster, or fewer clicks at a time.")]
    BodyTimeout { limit_ms: u64 },
    #[error("The body's length is not said. Send a Content-Length, or `Transfer-Encoding: chunked`.")]
    LengthRequired,
    #[error("The body is larger than {limit} bytes. Send fewer clicks at a time.")]
    BodyTooLarge { limit: u32 },
    #[error("The request holds more than {limit} clicks. Send fewer at a time.")]
    TooManyClicks { limit: u32 },
    #[error("The request line is longer than {limit} bytes. Send clicks in the body of `POST /v1/clicks`.")]
    TargetTooLong { limit: u32 },
    #[error("Send clicks as application/json, application/x-ndjson or text/plain.")]
    MediaType,
    #[error("Only UTF-8 is understood. Send the body in UTF-8, and no other charset in Content-Type.")]
    Charset,
    #[error("Only plain bodies are understood. Send the body without Content-Encoding.")]
    ContentCoding,
    #[error("The only expectation that can be met is `100-continue`.")]
    Expectation,
    #[error("The request's head is longer than {limit} bytes. Send fewer or shorter header fields.")]
    HeadTooLong { limit: u32 },
    #[error("The request has more than {limit} header fields. Send fewer.")]
    TooManyFields { limit: u32 },
    #[error("The only transfer coding understood is `chunked`, alone.")]
    Coding,
    #[error("This method is not known. Send clicks with `POST /v1/clicks`.")]
    UnknownMethod,
    #[error("Only HTTP/1.1 (and HTTP/1.0) is spoken here.")]
    Version,
    #[error("{}", shed_sentence(*.0))]
    Shed(Shed),
}

/// What is read of a connection after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterIt {
    /// The rest of the request is dropped, and the next one is taken.
    BodySkipped,
    /// Where the request ends is not known, or not agreed.
    NothingRead,
}

fn shed_sentence(shed: Shed) -> &'static str {
    match shed {
        Shed::LogBehind => "The disk is behind the clicks. Send the request again, unchanged, after a moment.",
        Shed::DiskFull => "The disk budget for clicks is used up. Send the request again, unchanged, later.",
        Shed::DedupFull => "The memory of recent click ids is full. Send the request again, unchanged, later.",
        Shed::Clock => "The clocks of this host disagree. Send the request again, unchanged, later.",
        Shed::Memory => {
            "The memory for unfinished requests is used up. Send the request again, unchanged, after a moment."
        }
        Shed::HorizonAhead => {
            "This host cannot yet tell new clicks from repeats. Send the request again, unchanged, in a minute or later."
        }
    }
}

impl Fault {
    pub fn status(&self) -> u16 {
        self.answer().0
    }

    /// Whether the end of the request is still known after this fault: then its body is skipped and the connection lives.
    pub fn leaves_framing_whole(&self) -> bool {
        self.answer().1 == AfterIt::BodySkipped
    }

    fn answer(&self) -> (u16, AfterIt) {
        use AfterIt::{BodySkipped, NothingRead};
        match self {
            Fault::BareLf
            | Fault::BareCr
            | Fault::ControlByte
            | Fault::RequestLine
            | Fault::Target
            | Fault::FieldName
            | Fault::SpaceBeforeColon
            | Fault::Folded
            | Fault::HostMissing
            | Fault::HostRepeated
            | Fault::HostInvalid
            | Fault::LengthRepeated
            | Fault::LengthInvalid
            | Fault::LengthAndCoding
            | Fault::CodingRepeated
            | Fault::CodingInOldVersion
            | Fault::TypeRepeated
            | Fault::ChunkSize
            | Fault::ChunkEnd
            | Fault::ChunkExtension { .. } => (400, NothingRead),
            Fault::NoClicks | Fault::Document { .. } => (400, BodySkipped),
            Fault::NotFound => (404, BodySkipped),
            Fault::Method => (405, BodySkipped),
            Fault::HeadTimeout { .. } | Fault::BodyTimeout { .. } => (408, NothingRead),
            // The client thinks that it sent a body; it may well have.
            Fault::LengthRequired => (411, NothingRead),
            Fault::BodyTooLarge { .. } => (413, NothingRead),
            Fault::TooManyClicks { .. } => (413, BodySkipped),
            Fault::TargetTooLong { .. } => (414, NothingRead),
            Fault::MediaType | Fault::Charset | Fault::ContentCoding => (415, BodySkipped),
            // Framed well enough, but a client that waits for 100 and gets a refusal may never send the body.
            Fault::Expectation => (417, NothingRead),
            Fault::HeadTooLong { .. } | Fault::TooManyFields { .. } => (431, NothingRead),
            Fault::Coding => (501, NothingRead),
            Fault::UnknownMethod => (501, BodySkipped),
            Fault::TooManyConnections { .. } => (503, NothingRead),
            Fault::Shed(_) => (503, BodySkipped),
            Fault::Version => (505, NothingRead),
        }
    }

    /// Seconds after which a shed request is worth another try; nothing else is.
    pub fn retry_after_s(&self) -> Option<u32> {
        let shed = match self {
            Fault::Shed(shed) => shed,
            Fault::TooManyConnections { .. } => return Some(1),
            _ => return None,
        };
        Some(match shed {
            Shed::LogBehind | Shed::Memory => 1,
            Shed::DedupFull | Shed::Clock => 10,
            Shed::DiskFull | Shed::HorizonAhead => 30,
        })
    }
}

/// The reason phrase of every status that is ever sent.
pub fn title(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        202 => "Accepted",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        other => unreachable!("status {other} is never sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::title;
    use crate::metrics::STATUSES;

    #[test]
    fn every_status_that_is_sent_has_a_counter_and_no_other() {
        let sent = |status: &u16| std::panic::catch_unwind(|| title(*status)).is_ok();
        let sent: Vec<u16> = (101..600).filter(sent).collect();
        assert_eq!(sent, STATUSES, "replies but the interim one");
    }
}

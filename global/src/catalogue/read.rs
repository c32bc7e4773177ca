//! Pure. A catalogue out of the bytes of its file: CSV with a header, or an object a line. Whatever is wrong is said with its
//! line, and nothing of such a file is used.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read};

use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3;

use super::{ADS_MAX, Catalogue, FILE_BYTES_MAX, ID_BYTES_MAX};

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub enum BadCatalogue {
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    /// Read it again then: it may be half a file.
    #[error(
        "it names {ads} ads and the catalogue before it {before}: half a file? One that is whole is left as it is: it is in force when it \
         has not changed for 10 minutes"
    )]
    Shrunk { ads: usize, before: usize, until_ms: i64 },
    #[error("{0}")]
    Unreadable(#[from] Error),
}

/// Read at once.
const READ_BYTES: usize = 64 << 10;
/// Of an object with all its other fields.
const LINE_BYTES_MAX: u64 = 64 << 10;

const COLUMNS: [&str; 3] = ["ad_id", "campaign_id", "advertiser_id"];

/// A line as an object. Other fields are of others.
#[derive(Deserialize)]
struct Line {
    ad_id: String,
    #[serde(default)]
    campaign_id: Option<String>,
    #[serde(default)]
    advertiser_id: Option<String>,
}

impl Catalogue {
    /// Reads a file to its end. `bytes`: how long it is said to be.
    pub fn read(file: impl Read, bytes: u64, now_ms: i64) -> Result<Catalogue, BadCatalogue> {
        let mut catalogue = Catalogue::with_bytes(bytes.min(FILE_BYTES_MAX) as usize);
        let mut hashed = Hashed { file, hash: Xxh3::new(), bytes: 0 };
        {
            let mut buffered = BufReader::with_capacity(READ_BYTES, &mut hashed);
            let objects = buffered.fill_buf()?.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
            if objects { read_objects(buffered, &mut catalogue)? } else { read_csv(buffered, &mut catalogue)? }
        }
        if catalogue.ads.is_empty() {
            let why = "there is no ad in the file; to count by what clicks say alone, leave --ads out";
            return Err(bad(1, why.to_owned()));
        }
        Ok(catalogue.finish(hashed.hash.digest(), now_ms))
    }

    /// Takes a line in, if it can be one.
    fn put(&mut self, line: u64, ids: [&str; 3]) -> Result<(), BadCatalogue> {
        for (name, id) in COLUMNS.into_iter().zip(ids) {
            let why = match id {
                "" if name == "ad_id" => "is empty".to_owned(),
                _ if id.len() > ID_BYTES_MAX => format!("has {} bytes; clicks carry up to {ID_BYTES_MAX}", id.len()),
                _ if id.trim() != id => format!("{id:?} begins or ends with white space, and no click's would"),
                _ => continue,
            };
            return Err(bad(line, format!("{name} {why}")));
        }
        let [ad_id, campaign_id, advertiser_id] = ids;
        self.add(ad_id, campaign_id, advertiser_id)
            .map_err(|_| bad(line, format!("ad {ad_id:?} stands here with other owners than on a line before")))?;
        if self.ads.len() > ADS_MAX {
            return Err(bad(line, format!("more than {ADS_MAX} ads; leave those out that have no clicks any more")));
        }
        Ok(())
    }
}

/// What was read of the file, up to [`FILE_BYTES_MAX`].
struct Hashed<R> {
    file: R,
    hash: Xxh3,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(out)?;
        self.hash.update(&out[..read]);
        self.bytes += read as u64;
        if self.bytes > FILE_BYTES_MAX {
            let why =
                format!("more than {FILE_BYTES_MAX} bytes; leave out columns, and ads that have no clicks any more");
            return Err(Error::new(ErrorKind::FileTooLarge, why));
        }
        Ok(read)
    }
}

fn read_csv(file: impl Read, catalogue: &mut Catalogue) -> Result<(), BadCatalogue> {
    let mut reader = csv::ReaderBuilder::new().has_headers(true).flexible(false).from_reader(file);
    let header = reader.headers().map_err(not_csv)?;
    let column = |name: &str| {
        let mut found = header.iter().enumerate().filter(|(_, title)| *title == name).map(|(at, _)| at);
        match (found.next(), found.next()) {
            (at, None) => Ok(at),
            (_, Some(_)) => Err(bad(1, format!("two columns have the name {name}"))),
        }
    };
    let [ad_id, campaign_id, advertiser_id] = [column(COLUMNS[0])?, column(COLUMNS[1])?, column(COLUMNS[2])?];
    let (Some(ad_id), true) = (ad_id, campaign_id.is_some() || advertiser_id.is_some()) else {
        let found = header.iter().take(10).collect::<Vec<_>>().join(", ");
        let wanted = "the header must name the columns ad_id and campaign_id, advertiser_id or both";
        return Err(bad(1, format!("{wanted}; it is {found:?}")));
    };
    let header = header.clone();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(not_csv)? {
        let line = record.position().map_or(0, csv::Position::line);
        if record == header {
            return Err(bad(
                line,
                "the header stands here once more: several files in one? Write one, whole".to_owned(),
            ));
        }
        let id = |at: Option<usize>| at.and_then(|at| record.get(at)).unwrap_or_default();
        catalogue.put(line, [id(Some(ad_id)), id(campaign_id), id(advertiser_id)])?;
    }
    Ok(())
}

fn not_csv(error: csv::Error) -> BadCatalogue {
    let line = error.position().map_or(1, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(error) => BadCatalogue::Unreadable(error),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            bad(line, format!("{len} fields, the header has {expected_len}"))
        }
        csv::ErrorKind::Utf8 { .. } => bad(line, "no UTF-8".to_owned()),
        other => bad(line, format!("{other:?}")),
    }
}

fn read_objects(mut file: impl BufRead, catalogue: &mut Catalogue) -> Result<(), BadCatalogue> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if text.len() as u64 == LINE_BYTES_MAX {
            return Err(bad(line, format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let read: Line = serde_json::from_slice(&text).map_err(|error| {
            let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
            bad(line, text.strip_suffix(&place).unwrap_or(&text).to_owned())
        })?;
        let id = |id: Option<String>| id.unwrap_or_default();
        catalogue.put(line, [&read.ad_id, &id(read.campaign_id), &id(read.advertiser_id)])?;
    }
    Ok(())
}

fn bad(line: u64, why: String) -> BadCatalogue {
    BadCatalogue::Line { line, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Catalogue, BadCatalogue> {
        Catalogue::read(bytes, bytes.len() as u64, 5)
    }

    fn refusal(bytes: &[u8]) -> (u64, String) {
        match read(bytes) {
            Err(BadCatalogue::Line { line, why }) => (line, why),
            Err(error @ (BadCatalogue::Shrunk { .. } | BadCatalogue::Unreadable(_))) => panic!("{error}"),
            Ok(catalogue) => panic!("{} ads were taken", catalogue.ads()),
        }
    }

    fn owner(catalogue: &Catalogue, ad_id: &str) -> (String, String) {
        let owner = catalogue.owner(ad_id).expect("it is named");
        (owner.campaign_id.to_owned(), owner.advertiser_id.to_owned())
    }

    #[test]
    fn both_forms_say_the_same() {
        let csv =
            "\u{feff}advertiser_id,note,ad_id,campaign_id\r\nacme,\"a, \"\"b\"\"\",ad 1,summer\r\nacme,,ad_2,\r\n";
        let objects = "{\"ad_id\":\"ad 1\",\"campaign_id\":\"summer\",\"advertiser_id\":\"acme\",\"note\":1}\n\n\
                       {\"ad_id\":\"ad_2\",\"campaign_id\":null,\"advertiser_id\":\"acme\"}\n";
        for text in [csv, objects] {
            let catalogue = read(text.as_bytes()).expect("good");
            assert_eq!((catalogue.ads(), catalogue.loaded_ms()), (2, 5), "{text}");
            assert_eq!(owner(&catalogue, "ad 1"), ("summer".to_owned(), "acme".to_owned()));
            assert_eq!(owner(&catalogue, "ad_2"), (String::new(), "acme".to_owned()));
        }
        let version = |text: &str| read(text.as_bytes()).expect("good").version();
        assert!(version(csv) == version(csv) && version(csv) != version(objects));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let long = format!("ad_id,campaign_id\na,b\n{},c\n", "x".repeat(65));
        for (text, line, words) in [
            ("", 1, "the header must name"),
            ("ad_id,campaign_id\n", 1, "no ad in the file"),
            ("ad,campaign\n1,2\n", 1, "the header must name"),
            ("ad_id\n1\n", 1, "the header must name"),
            ("ad_id,ad_id,campaign_id\n", 1, "two columns"),
            ("ad_id,campaign_id\na,b\nad_id,campaign_id\nc,d\n", 3, "the header stands here once more"),
            ("ad_id,campaign_id\na,b\nc\n", 3, "1 fields, the header has 2"),
            ("ad_id,campaign_id\na,b\n,c\n", 3, "ad_id is empty"),
            ("ad_id,campaign_id\na, b\n", 2, "white space"),
            ("ad_id,campaign_id\na,b\nc,d\na,e\n", 4, "other owners"),
            (&long, 3, "65 bytes"),
            ("{\"ad_id\":\"a\"}\n{\"ad_id\":3}\n", 2, "expected a string"),
            ("{\"ad_id\":\"a\"}\n{\"ad_id\":\"b\"", 2, "EOF"),
            ("{\"campaign_id\":\"b\"}\n", 1, "missing field `ad_id`"),
        ] {
            let found = refusal(text.as_bytes());
            assert!(found.0 == line && found.1.contains(words), "{text:?}: {found:?}");
        }
        assert_eq!(refusal(b"ad_id,campaign_id\na,\xff\n"), (2, "no UTF-8".to_owned()));
        let endless = Catalogue::read(std::io::repeat(b'x'), 0, 0).err().expect("too long").to_string();
        assert!(endless.contains("more than 134217728 bytes"), "{endless}");
    }

    #[test]
    fn a_million_ads_are_taken_and_no_more() {
        let mut text = "ad_id,campaign_id\n".to_owned();
        (0..ADS_MAX).for_each(|n| text.push_str(&format!("{n},c\n")));
        assert_eq!(read(text.as_bytes()).expect("a million").ads(), ADS_MAX);
        text.push_str("one more,c\n");
        assert!(refusal(text.as_bytes()).1.contains("more than 1000000"));
    }
}

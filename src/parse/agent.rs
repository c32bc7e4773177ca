//! Pure. What a user agent says of device and client, by `woothee`, asked once for each distinct text.
//!
//! Asking takes tens of microseconds, remembering about ten nanoseconds. The memory is a fixed table in which a new text takes
//! the place of an older one with the same low bits: 4,096 × 32 B = 128 KiB a core, more agents than a core sees in a second.

use crate::click::{Agent, Device};
use xxhash_rust::xxh3::xxh3_128;

const PLACES: usize = 4096;

/// What is counted of a user agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AgentFacts {
    pub family: Agent,
    pub device: Device,
    /// A crawler, a library, or another client without a person.
    pub is_bot: bool,
}

const ABSENT: AgentFacts = AgentFacts { family: Agent::Unknown, device: Device::Unknown, is_bot: false };
const BOT: AgentFacts = AgentFacts { family: Agent::Bot, device: Device::Bot, is_bot: true };

/// The agents seen last.
pub(super) struct Agents {
    /// By the low bits of the text's hash; a hash of 0 is an empty place.
    places: Box<[(u128, AgentFacts)]>,
}

impl Agents {
    pub fn new() -> Agents {
        // The parser's tables are built at its first use: not while a click waits.
        let _ = classify("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36");
        Agents { places: vec![(0, ABSENT); PLACES].into_boxed_slice() }
    }

    #[inline]
    pub fn look_up(&mut self, text: &[u8]) -> AgentFacts {
        if text.is_empty() { ABSENT } else { self.remembered(text) }
    }

    fn remembered(&mut self, text: &[u8]) -> AgentFacts {
        let hash = xxh3_128(text);
        let place = &mut self.places[hash as usize % PLACES];
        if place.0 != hash {
            *place = (hash, std::str::from_utf8(text).map_or(ABSENT, classify));
        }
        place.1
    }
}

/// Clients without a person that `woothee` takes for something else, as their text begins.
const LIBRARIES: [&str; 19] = [
    "curl/",
    "wget/",
    "python",
    "aiohttp/",
    "httpx/",
    "go-http-client/",
    "go/",
    "okhttp/",
    "axios/",
    "node-fetch",
    "node",
    "undici",
    "got (",
    "libwww-perl",
    "lwp::",
    "ruby",
    "postmanruntime/",
    "insomnia/",
    "reqwest/",
];

/// Browsers that are driven by a program, by a word in their text.
const DRIVEN: [&str; 6] = ["headlesschrome", "phantomjs", "puppeteer", "playwright", "selenium", "chrome-lighthouse"];

/// Televisions, by a word in their text.
const TELEVISIONS: [&str; 12] = [
    "smart-tv",
    "smarttv",
    "smart tv",
    "appletv",
    "apple tv",
    "googletv",
    "google tv",
    "android tv",
    "bravia",
    "hbbtv",
    "roku",
    "web0s",
];

fn classify(text: &str) -> AgentFacts {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if LIBRARIES.iter().any(|library| lower.starts_with(library)) || has(&DRIVEN) {
        return BOT;
    }
    let Some(found) = woothee::parser::Parser::new().parse(text) else {
        return AgentFacts { family: Agent::Other, device: Device::Other, is_bot: false };
    };
    if found.category == "crawler" || found.name == "HTTP Library" {
        return BOT;
    }
    let device = match found.category {
        _ if has(&TELEVISIONS) => Device::Tv,
        "smartphone" if found.os == "iPad" || lower.contains("tablet") => Device::Tablet,
        // Android's own rule: a phone says `Mobile`, a tablet does not.
        "smartphone" if found.os == "Android" && !lower.contains("mobile") => Device::Tablet,
        "smartphone" | "mobilephone" => Device::Mobile,
        "pc" => Device::Desktop,
        _ => Device::Other,
    };
    let family = match found.name {
        "Chrome" => Agent::Chrome,
        "Safari" => Agent::Safari,
        "Firefox" => Agent::Firefox,
        "Edge" => Agent::Edge,
        "Opera" => Agent::Opera,
        "Internet Explorer" => Agent::InternetExplorer,
        "Webview" => Agent::Webview,
        _ => Agent::Other,
    };
    AgentFacts { family, device, is_bot: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_fall_into_their_families_devices_and_kinds() {
        let chrome = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0";
        let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)";
        for (text, family, device, is_bot) in [
            (format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {chrome} Safari/537.36"), Agent::Chrome, Device::Desktop, false),
            (format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {chrome} Safari/537.36 Edg/130.0"), Agent::Edge, Device::Desktop, false),
            (format!("Mozilla/5.0 (X11; Linux x86_64) {chrome} Safari/537.36 OPR/115.0"), Agent::Opera, Device::Desktop, false),
            (format!("Mozilla/5.0 (Linux; Android 14; Pixel 8) {chrome} Mobile Safari/537.36"), Agent::Chrome, Device::Mobile, false),
            (format!("Mozilla/5.0 (Linux; Android 13; SM-X906C) {chrome} Safari/537.36"), Agent::Chrome, Device::Tablet, false),
            (format!("Mozilla/5.0 (Linux; Android 12; BRAVIA 4K VH2) {chrome} Safari/537.36"), Agent::Chrome, Device::Tv, false),
            (format!("{iphone} Version/17.5 Mobile/15E148 Safari/604.1"), Agent::Safari, Device::Mobile, false),
            (format!("{iphone} Mobile/15E148"), Agent::Webview, Device::Mobile, false),
            ("Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 Version/16.6 Mobile/15E148 Safari/604.1".to_owned(), Agent::Safari, Device::Tablet, false),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0".to_owned(), Agent::Firefox, Device::Desktop, false),
            ("Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0) like Gecko".to_owned(), Agent::InternetExplorer, Device::Desktop, false),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)".to_owned(), Agent::Bot, Device::Bot, true),
            ("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)".to_owned(), Agent::Bot, Device::Bot, true),
            (format!("Mozilla/5.0 (X11; Linux x86_64) {} Safari/537.36", chrome.replace("Chrome", "HeadlessChrome")), Agent::Bot, Device::Bot, true),
            ("curl/8.5.0".to_owned(), Agent::Bot, Device::Bot, true),
            ("python-requests/2.32.0".to_owned(), Agent::Bot, Device::Bot, true),
            ("Go-http-client/1.1".to_owned(), Agent::Bot, Device::Bot, true),
            ("Apache-HttpClient/4.5.14 (Java/17)".to_owned(), Agent::Bot, Device::Bot, true),
            ("something of one's own".to_owned(), Agent::Other, Device::Other, false),
            (String::new(), Agent::Unknown, Device::Unknown, false),
        ] {
            assert_eq!(Agents::new().look_up(text.as_bytes()), AgentFacts { family, device, is_bot }, "{text}");
        }
    }

    #[test]
    fn an_agent_is_the_same_whoever_took_its_place_meanwhile() {
        let mut agents = Agents::new();
        let texts: Vec<String> = (0..3 * PLACES).map(|n| format!("{}/{n}", ["curl", "x"][n % 2])).collect();
        for _ in 0..2 {
            for (n, text) in texts.iter().enumerate() {
                assert_eq!(agents.look_up(text.as_bytes()).is_bot, n % 2 == 0, "{text}");
            }
        }
        assert_eq!(agents.places.len(), PLACES, "bounded");
    }
}

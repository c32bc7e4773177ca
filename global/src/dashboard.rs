//! The dashboard: a few plain files in the binary, for a browser that then asks the query API like anybody else. They hold nothing of
//! the store, so they are everybody's who reaches the port.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use xxhash_rust::xxh3::xxh3_64;

use crate::http::answered;

/// What a page of ours may do: run, show and ask what is of this very port, and nothing else. Nobody else's page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Is shown by a server that feeds itself.
const DEMO_HIDDEN: &str = "<p id=\"demo\" hidden>";
const DEMO_SHOWN: &str = "<p id=\"demo\">";

struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const INDEX: File = File { path: "/", kind: HTML, text: include_str!("dashboard/index.html") };

const FILES: [File; 10] = [
    File { path: "/dashboard/style.css", kind: STYLE, text: include_str!("dashboard/style.css") },
    File { path: "/dashboard/app.js", kind: SCRIPT, text: include_str!("dashboard/app.js") },
    File { path: "/dashboard/api.js", kind: SCRIPT, text: include_str!("dashboard/api.js") },
    File { path: "/dashboard/charts.js", kind: SCRIPT, text: include_str!("dashboard/charts.js") },
    File { path: "/dashboard/format.js", kind: SCRIPT, text: include_str!("dashboard/format.js") },
    File { path: "/dashboard/live.js", kind: SCRIPT, text: include_str!("dashboard/live.js") },
    File { path: "/dashboard/subject.js", kind: SCRIPT, text: include_str!("dashboard/subject.js") },
    File { path: "/dashboard/icon.svg", kind: "image/svg+xml", text: include_str!("dashboard/icon.svg") },
    File { path: "/dashboard/uplot.js", kind: SCRIPT, text: include_str!("dashboard/vendor/uPlot.iife.min.js") },
    File { path: "/dashboard/uplot.css", kind: STYLE, text: include_str!("dashboard/vendor/uPlot.min.css") },
];

/// What a page is told of the server that it comes from, beside the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The server sends itself clicks.
    pub demo: bool,
}

/// Every file of the page, at `/` and below `/dashboard/`.
pub fn routes(page: Page) -> Router {
    let index = if page.demo { INDEX.text.replace(DEMO_HIDDEN, DEMO_SHOWN) } else { INDEX.text.to_owned() };
    let router = Router::new().route(INDEX.path, serving(INDEX.kind, index));
    FILES.into_iter().fold(router, |router, file| router.route(file.path, serving(file.kind, file.text.to_owned())))
}

/// One file with its ETag: asked for again each time, sent again only by another version. Not compressed: the whole page is some
/// 100 KB, once for each browser and version.
fn serving(kind: &'static str, text: String) -> MethodRouter {
    let etag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
    let text = Bytes::from(text);
    get(move |asked: HeaderMap| {
        let response = answered(&asked, &etag, || ([(header::CONTENT_TYPE, kind)], text).into_response());
        std::future::ready(guarded(response))
    })
}

fn guarded(mut response: Response) -> Response {
    let fields = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (PERMISSIONS, "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file that the page names is served, and no other lies about.
    #[test]
    fn the_page_and_its_files_name_each_other() {
        let named = |text: &str, open: &str| -> Vec<String> {
            text.split(open).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
        };
        let mut wanted: Vec<String> = ["href=\"/dashboard/", "src=\"/dashboard/"]
            .iter()
            .flat_map(|open| named(INDEX.text, open))
            .chain(FILES.iter().filter(|file| file.kind == SCRIPT).flat_map(|file| named(file.text, "from \"./")))
            .map(|name| format!("/dashboard/{name}"))
            .collect();
        wanted.sort();
        wanted.dedup();
        let mut served: Vec<&str> = FILES.iter().map(|file| file.path).collect();
        served.sort_unstable();
        assert_eq!(wanted, served);
    }

    /// Nothing that the policy would refuse, and nothing of elsewhere.
    #[test]
    fn nothing_is_inline_or_from_elsewhere() {
        for refused in ["<style", " style=", " onclick=", "<script>", "http://", "https://"] {
            assert!(!INDEX.text.contains(refused), "{refused}");
        }
        for file in FILES.iter().filter(|file| !file.path.contains("/uplot.") && !file.path.ends_with("/icon.svg")) {
            for refused in ["http://", "https://", "innerHTML", "eval(", "@import", "url("] {
                assert!(!file.text.contains(refused), "{}: {refused}", file.path);
            }
        }
    }

    #[test]
    fn only_a_demo_says_that_it_is_one() {
        assert_eq!(INDEX.text.matches(DEMO_HIDDEN).count(), 1);
    }
}

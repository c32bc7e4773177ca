//! What one would write instead of tollgate: axum, serde_json, one thread. Each click is parsed into a struct and its required fields are
//! checked; nothing is remembered and nothing is on disk when it is acknowledged.

use crate::null_http::{Args as ListenArgs, listen};
use crate::null_uring::pin;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing::post};
use serde::Deserialize;
use std::borrow::Cow;

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    listen: ListenArgs,
}

/// A click as the load generator sends it; what has no use here is parsed all the same, as a collector would.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Click<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    ad_id: Cow<'a, str>,
    #[serde(borrow)]
    campaign_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_id: Option<Cow<'a, str>>,
    timestamp: i64,
    #[serde(borrow)]
    region: Option<Cow<'a, str>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
}

/// The clicks of a body: one a line.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n')
}

/// The id of a good click.
pub fn id_of(line: &[u8]) -> Option<Cow<'_, str>> {
    let click: Click<'_> = serde_json::from_slice(line).ok()?;
    let good = !click.ad_id.is_empty() && click.timestamp > 0;
    good.then_some(click.request_id)
}

/// As many bytes as tollgate's reply.
pub fn reply(accepted: usize, rejected: usize) -> impl IntoResponse {
    let body = format!("{{\"accepted\":{accepted},\"duplicates\":0,\"rejected\":{rejected}}}");
    let status = if accepted > 0 { StatusCode::ACCEPTED } else { StatusCode::UNPROCESSABLE_ENTITY };
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}

pub fn run(args: &Args) -> Result<(), String> {
    serve(&args.listen, Router::new().route("/v1/clicks", post(take)))
}

async fn take(body: Bytes) -> impl IntoResponse {
    let (mut accepted, mut rejected) = (0, 0);
    for line in lines(&body) {
        match id_of(line) {
            Some(_) => accepted += 1,
            None => rejected += 1,
        }
    }
    reply(accepted, rejected)
}

/// On one thread, pinned where that is asked for.
pub fn serve(args: &ListenArgs, router: Router) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    args.cpu.map(pin).transpose().map_err(text)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    runtime.block_on(async {
        let listener = listen(args).map_err(text)?;
        listener.set_nonblocking(true).map_err(text)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(text)?;
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            // A connection that is gone already.
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await.map_err(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_loadgen::clicks::Clicks;
    use tollgate_loadgen::plan::Plan;
    use tollgate_loadgen::text::timestamp13;

    #[test]
    fn clicks_are_parsed_and_broken_ones_are_not() {
        let clicks = Clicks::new(&Plan { invalid: 0.3, ..Plan::default() });
        let (mut good, mut broken) = (0, 0);
        for number in 0..200 {
            let mut line = Vec::new();
            let ad = clicks.append(number, 1_763_791_000_000, &timestamp13(1_763_791_000_000), &mut line);
            assert_eq!(id_of(&line).is_some(), ad.is_some(), "{}", String::from_utf8_lossy(&line));
            if ad.is_some() { good += 1 } else { broken += 1 }
        }
        assert!(good > 100 && broken > 30);
    }
}

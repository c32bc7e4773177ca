//! An error as RFC 9457 has it: `application/problem+json`, naming the parameter where one is at fault, what was given and what is
//! allowed.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::parameters::BadParameter;
use crate::question_error::QuestionError;
use crate::tables::StoreError;

#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub detail: String,
    pub parameter: Option<Box<BadParameter>>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), parameter: None }
    }

    /// Ask again in a moment.
    pub fn busy(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<BadParameter> for Problem {
    fn from(bad: BadParameter) -> Problem {
        Problem { status: StatusCode::BAD_REQUEST, detail: bad.detail.clone(), parameter: Some(Box::new(bad)) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        tracing::error!(%error, "a query failed");
        Problem::busy(format!("the store cannot be read now: {error}"))
    }
}

impl From<QuestionError> for Problem {
    fn from(error: QuestionError) -> Problem {
        match error {
            // Which parameter to change, the route knows better: see `counts`.
            QuestionError::TooWide | QuestionError::TooFine { .. } | QuestionError::Pruned { .. } => {
                Problem::new(StatusCode::BAD_REQUEST, error.to_string())
            }
            QuestionError::NotYet => Problem::busy(error.to_string()),
            QuestionError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(bad) = self.parameter {
            body["parameter"] = bad.parameter.into();
            body["given"] = bad.given.into();
            body["allowed"] = bad.allowed.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

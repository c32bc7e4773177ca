//! What of the store somebody may see. Every route asks for it, so that none can forget it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::problem::Problem;
use crate::question::Scope;

/// Put into a request's extensions by whoever lets the request in; without it nothing is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    All,
    /// Rows of these campaigns and advertisers, and nothing of the others.
    Scoped(Arc<Scope>),
}

impl Access {
    /// As filters of questions have it.
    pub fn scope(&self) -> Option<Arc<Scope>> {
        match self {
            Access::All => None,
            Access::Scoped(scope) => Some(scope.clone()),
        }
    }

    /// Whether it may see what is of no campaign, such as how many clicks an edge sent.
    pub fn is_all(&self) -> bool {
        *self == Access::All
    }
}

impl<S: Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Access, Problem> {
        let given = parts.extensions.get::<Access>().cloned();
        given.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "nobody said what this request may see"))
    }
}

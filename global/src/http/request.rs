//! What handlers take of a request: the id of the path, the parameters as they stand in the URL.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::parameters::{Asked, BadParameter, check_id};
use super::problem::Problem;
use super::routes::Route;

/// The query of the URL, decoded.
pub struct Given(Vec<(String, String)>);

impl Given {
    pub fn read(&self, route: &Route) -> Result<Asked, Problem> {
        Ok(Asked::read(&self.0, route.parameters, route.groups)?)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Given {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Given, Problem> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(given) = query.map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
        Ok(Given(given))
    }
}

/// The id that stands in the path, as text; not yet looked at.
pub struct PathId(Result<String, String>);

impl PathId {
    /// The id, where the route has one.
    pub fn read(self, route: &Route) -> Result<String, Problem> {
        let name = route.id.map_or("", |id| id.name());
        let id = self.0.map_err(|said| {
            Problem::from(BadParameter { detail: said, ..BadParameter::new(name, "", "percent-encoded UTF-8") })
        })?;
        check_id(name, &id)?;
        Ok(id)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathId, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        Ok(PathId(path.map(|Path(id)| id).map_err(|rejection| rejection.body_text())))
    }
}

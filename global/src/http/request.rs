//! What handlers take of a request: the id of the path, the parameters as they stand in the URL.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::parameters::{Asked, BadParameter, ENCODED, check_id, decoded, pairs};
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

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Given, Problem> {
        Ok(Given(pairs(parts.uri.query().unwrap_or(""))?))
    }
}

/// The id that stands in the path, as text; not yet looked at. None: it is not percent-encoded as it must be.
pub struct PathId(Option<String>);

impl PathId {
    /// The id, where the route has one.
    pub fn read(self, route: &Route) -> Result<String, Problem> {
        let name = route.id.map_or("", |id| id.name());
        let id = self.0.ok_or_else(|| BadParameter::new(name, "", ENCODED))?;
        check_id(name, &id)?;
        Ok(id)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathId, Problem> {
        // The router takes a % that begins nothing as it stands.
        let encoded = decoded(parts.uri.path()).is_some();
        let path = Path::<String>::from_request_parts(parts, state).await;
        Ok(PathId(path.ok().map(|Path(id)| id).filter(|_| encoded)))
    }
}

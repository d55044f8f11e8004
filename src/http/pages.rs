//! Pages for people: the front page and the API browser.
//!
//! Owns: their HTML and headers. Never: loads anything from elsewhere or prints what a user wrote. Invariant: they work offline.

use super::error::{ApiError, ApiResult};
use super::openapi;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::Config;

const FRONT: &str = include_str!("pages/front.html");

/// Nothing from elsewhere, no frames; the API browser needs its own inline styles.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

static DOCS: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

fn page(mut response: actix_web::HttpResponseBuilder) -> actix_web::HttpResponseBuilder {
    response
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"));
    response
}

/// `GET /`
pub async fn front() -> HttpResponse {
    page(HttpResponse::Ok())
        .content_type("text/html; charset=utf-8")
        .body(FRONT.replace("{version}", env!("CARGO_PKG_VERSION")))
}

/// `GET /openapi.json`
pub async fn openapi_json() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(openapi::text())
}

/// `GET /docs`
pub async fn docs_redirect() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, "/docs/"))
        .finish()
}

/// `GET /docs/{file}`
pub async fn docs(file: web::Path<String>) -> ApiResult<HttpResponse> {
    match utoipa_swagger_ui::serve(&file, Arc::clone(&DOCS)) {
        Ok(Some(found)) => {
            let mut response = page(HttpResponse::Ok());
            response.content_type(found.content_type);
            if found.gzpipped {
                response.insert_header((header::CONTENT_ENCODING, "gzip"));
            }
            Ok(response.body(found.bytes.into_owned()))
        }
        Ok(None) => Err(ApiError::not_found("page")),
        Err(error) => {
            tracing::error!(%error, "the API browser could not be served");
            Err(ApiError::not_found("page"))
        }
    }
}

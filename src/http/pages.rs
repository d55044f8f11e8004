//! Pages for people: the live page, its parts, and the API browser.
//!
//! Owns: their files and headers. Never: loads anything from elsewhere, and never prints what a user wrote; the scripts do, as text
//! only. Invariant: they work offline, from the binary alone.

use super::error::{ApiError, ApiResult};
use super::openapi;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use rust_embed::{Embed, EmbeddedFile};
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::Config;

/// The page's files, in the binary.
#[derive(Embed)]
#[folder = "src/http/pages/assets"]
struct Assets;

/// Nothing from elsewhere, nothing inline, no frames, no forms that leave the page.
const PAGE_POLICY: &str =
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'";

/// Nothing from elsewhere, no frames; the API browser needs its own inline styles.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

static DOCS: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

/// An answer for a browser, under a content security policy.
pub(super) fn guarded(mut response: HttpResponseBuilder, policy: &'static str) -> HttpResponseBuilder {
    response
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"));
    response
}

/// `GET /`
pub async fn front() -> ApiResult<HttpResponse> {
    let file = Assets::get("index.html").ok_or_else(|| ApiError::not_found("page"))?;
    let text = String::from_utf8_lossy(&file.data).replace("{version}", env!("CARGO_PKG_VERSION"));
    Ok(guarded(HttpResponse::Ok(), PAGE_POLICY)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type("text/html; charset=utf-8")
        .body(text))
}

/// `GET /ui/{file}`
pub async fn asset(req: HttpRequest, name: web::Path<String>) -> ApiResult<HttpResponse> {
    let missing = || ApiError::not_found("page");
    let media_type = media_type(&name).ok_or_else(missing)?;
    let file = Assets::get(&name).ok_or_else(missing)?;
    let tag = etag(&file);
    // Modules name each other by plain names, so a new version must be noticed at once: ask each time, answer 304 mostly.
    let mut response = if is_known(&req, &tag) {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"));
    let mut response = guarded(response, PAGE_POLICY).content_type(media_type).take();
    Ok(response.body(file.data.into_owned()))
}

fn media_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

fn etag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn is_known(req: &HttpRequest, tag: &str) -> bool {
    let known = req.headers().get(header::IF_NONE_MATCH).map(HeaderValue::to_str);
    matches!(known, Some(Ok(tags)) if tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag))
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
            let mut response = guarded(HttpResponse::Ok(), DOCS_POLICY);
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

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::StatusCode;
    use actix_web::test::TestRequest;

    #[actix_web::test]
    async fn every_file_has_a_type_and_is_not_sent_twice() {
        let names: Vec<_> = Assets::iter().filter(|name| name != "index.html").collect();
        assert!(names.len() > 10);
        for name in names {
            let ask = |tag: Option<HeaderValue>| {
                let mut req = TestRequest::get();
                if let Some(tag) = tag {
                    req = req.insert_header((header::IF_NONE_MATCH, tag));
                }
                asset(req.to_http_request(), web::Path::from(name.to_string()))
            };
            let first = ask(None).await.unwrap();
            assert_eq!(first.status(), StatusCode::OK, "{name}");
            let tag = first.headers().get(header::ETAG).cloned();
            assert_eq!(ask(tag).await.unwrap().status(), StatusCode::NOT_MODIFIED, "{name}");
            let other = Some(HeaderValue::from_static("\"x\""));
            assert_eq!(ask(other).await.unwrap().status(), StatusCode::OK, "{name}");
        }
    }

    #[test]
    fn nothing_in_the_page_is_inline_or_from_elsewhere() {
        for name in Assets::iter() {
            let file = Assets::get(&name).unwrap();
            let text = String::from_utf8(file.data.into_owned()).expect("every file is text");
            for banned in [
                "style=\"",
                "<style",
                "onclick=\"",
                "javascript:",
                "innerHTML",
                "@import",
                "eval(",
            ] {
                assert!(!text.contains(banned), "{name} holds {banned}");
            }
            for (at, _) in text.match_indices("://") {
                let start = text[..at].rfind(['"', '\'', '`', ' ', '(']).map_or(0, |at| at + 1);
                let address = &text[start..(at + 15).min(text.len())];
                assert!(address.starts_with("http://www.w3.org"), "{name} names {address}");
            }
        }
    }

    #[actix_web::test]
    async fn unknown_files_and_ways_out_are_not_found() {
        for name in [
            "",
            "nothing.js",
            "../pages.rs",
            "index.html",
            "app.js/",
            "/etc/passwd",
            "views",
        ] {
            let answer = asset(TestRequest::get().to_http_request(), web::Path::from(name.to_owned())).await;
            assert_eq!(answer.unwrap_err().problem().status, 404, "{name}");
        }
    }
}

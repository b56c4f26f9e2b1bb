//! `GET /openapi.json` and `GET /docs`: the contract, and a page to try it. All assets are in the binary.

use crate::http::{ApiError, openapi};
use axum::{
    extract::{Path, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::header;
use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};
use utoipa_swagger_ui::{Config, SwaggerFile};

static OPENAPI: LazyLock<Result<Bytes, String>> =
    LazyLock::new(|| openapi::document().to_json().map(Bytes::from).map_err(|error| error.to_string()));

static SWAGGER_UI: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // "none" keeps the page from asking a validator on the internet about this document
    Arc::new(Config::from("/openapi.json").try_it_out_enabled(true).validator_url("none"))
});

/// The OpenAPI 3.1 description of everything that is served.
#[utoipa::path(
    get, path = "/openapi.json",
    operation_id = "openapi", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"))
)]
pub async fn openapi() -> Result<Response, ApiError> {
    let document = OPENAPI.as_ref().map_err(|error| ApiError::Internal(error.clone()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document.clone()).into_response())
}

/// A page to read and try the API.
#[utoipa::path(
    get, path = "/docs",
    operation_id = "docs", tag = "service",
    responses((status = 200, description = "HTML", body = String, content_type = "text/html"))
)]
pub async fn page() -> Result<Response, ApiError> {
    let file = find("index.html")?;
    let html = String::from_utf8_lossy(&file.bytes);
    // the page names its assets relative to a path that ends with a slash
    let html = html.replacen("<head>", "<head><base href=\"docs/\">", 1);
    Ok(([(header::CONTENT_TYPE, file.content_type)], html).into_response())
}

/// The same page at the path with a trailing slash.
pub async fn page_below() -> Result<Response, ApiError> {
    asset(Ok(Path("index.html".into()))).await
}

/// A name that is not UTF-8 is none of a file.
pub async fn asset(name: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| ApiError::NotFound)?;
    let file = find(&name)?;
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    Ok(([(header::CONTENT_TYPE, file.content_type)], bytes).into_response())
}

fn find(name: &str) -> Result<SwaggerFile<'static>, ApiError> {
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&SWAGGER_UI));
    file.map_err(|error| ApiError::Internal(format!("{name}: {error}")))?.ok_or(ApiError::NotFound)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::App;

    #[tokio::test]
    async fn the_page_and_its_assets_are_in_the_binary() {
        let app = App::new();
        let page = app.get("/docs").await;
        assert_eq!(page.header("content-type"), Some("text/html"));
        assert!(page.text().contains(r#"<base href="docs/">"#));
        let below = app.get("/docs/").await;
        assert!(below.status == 200 && !below.text().contains("<base"));
        for asset in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"] {
            assert!(page.text().contains(asset), "{asset}");
            assert_eq!(app.get(&format!("/docs/{asset}")).await.status, 200, "{asset}");
        }
        for name in ["no-such-file", "%ff"] {
            assert_eq!(app.get(&format!("/docs/{name}")).await.error(), (404, "not_found".into()), "{name}");
        }
    }

    #[tokio::test]
    async fn the_page_loads_nothing_from_another_host() {
        let app = App::new();
        let page = app.get("/docs").await;
        assert!(!page.text().contains("src=\"http") && !page.text().contains("href=\"http"));
        let initializer = app.get("/docs/swagger-initializer.js").await;
        assert!(initializer.text().contains(r#""/openapi.json""#), "{}", initializer.text());
        assert!(initializer.text().contains(r#""validatorUrl": "none""#), "{}", initializer.text());
    }

    #[tokio::test]
    async fn the_contract_is_served() {
        let answer = App::new().get("/openapi.json").await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["openapi"], "3.1.0");
    }
}

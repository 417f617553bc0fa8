//! Axum on one thread: `peer-axum PORT VARIANT`.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Request},
    http::{header, HeaderName, HeaderValue},
    middleware::{from_fn, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
    Json, Router,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

#[derive(Serialize)]
struct User {
    id: u64,
}

#[derive(Deserialize)]
struct Item {
    name: String,
    #[serde(rename = "email")]
    _email: String,
    age: i64,
}

#[derive(Serialize)]
struct Answer {
    name: String,
    age: i64,
}

static MEBIBYTE: [u8; 1024 * 1024] = [b'y'; 1024 * 1024];
static CHUNK: [u8; 1024] = [b'x'; 1024];

async fn suspend() -> &'static str {
    tokio::task::yield_now().await;
    "Hello, World!"
}

async fn stream() -> Response {
    let chunks = tokio_stream::iter((0..100).map(|_| Ok::<_, Infallible>(Bytes::from_static(&CHUNK))));
    ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(chunks)).into_response()
}

macro_rules! add_header {
    ($index:literal) => {
        from_fn(|request: Request, next: Next| async move {
            let mut response = next.run(request).await;
            response.headers_mut().insert(
                HeaderName::from_static(concat!("x-middleware-", $index)),
                HeaderValue::from_static($index),
            );
            response
        })
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port: u16 = std::env::args().nth(1).expect("a port").parse().expect("a number");
    let variant = std::env::args().nth(2).unwrap_or_default();
    let mut app = Router::new()
        .route("/", get(|| async { "Hello, World!" }))
        .route("/json", get(|| async { Json(Message { message: "Hello, World!" }) }))
        .route("/users/{id}", get(|Path(id): Path<u64>| async move { Json(User { id }) }))
        .route(
            "/items",
            post(|Json(item): Json<Item>| async move { Json(Answer { name: item.name, age: item.age + 1 }) }),
        )
        .route("/suspend/sleep", get(suspend))
        .route("/suspend/future", get(suspend))
        .route("/stream", get(stream))
        .route("/upload", post(|body: Bytes| async move { body.len().to_string() }))
        .route(
            "/download",
            get(|| async { ([(header::CONTENT_TYPE, "application/octet-stream")], Bytes::from_static(&MEBIBYTE)) }),
        );
    if variant == "routes" {
        for index in 0..500 {
            app = app.route(&format!("/api/resource{index}/items"), get(move || async move { format!("resource {index}") }));
        }
    }
    if variant == "middleware" {
        app = app.layer(add_header!("0")).layer(add_header!("1")).layer(add_header!("2")).layer(add_header!("3"));
    }
    let app = app.layer(DefaultBodyLimit::max(16 * 1024 * 1024));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    axum::serve(listener, app).await.expect("a server");
}

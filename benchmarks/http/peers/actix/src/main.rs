//! Actix-web with one worker thread: `peer-actix PORT VARIANT`.

use actix_web::{
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::{from_fn, Next},
    web::{self, Bytes, Json, Path, PayloadConfig, ServiceConfig},
    App, HttpResponse, HttpServer,
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

const TEXT: &str = "text/plain; charset=utf-8";

async fn plaintext() -> HttpResponse {
    HttpResponse::Ok().content_type(TEXT).body("Hello, World!")
}

async fn message() -> Json<Message> {
    Json(Message { message: "Hello, World!" })
}

async fn user(id: Path<u64>) -> Json<User> {
    Json(User { id: id.into_inner() })
}

async fn items(item: Json<Item>) -> Json<Answer> {
    let item = item.into_inner();
    Json(Answer { name: item.name, age: item.age + 1 })
}

async fn suspend() -> HttpResponse {
    tokio::task::yield_now().await;
    plaintext().await
}

async fn stream() -> HttpResponse {
    let chunks = futures_util::stream::iter((0..100).map(|_| Ok::<_, actix_web::Error>(Bytes::from_static(&CHUNK))));
    HttpResponse::Ok().content_type("application/octet-stream").streaming(chunks)
}

async fn upload(body: Bytes) -> HttpResponse {
    HttpResponse::Ok().content_type(TEXT).body(body.len().to_string())
}

async fn download() -> HttpResponse {
    HttpResponse::Ok().content_type("application/octet-stream").body(Bytes::from_static(&MEBIBYTE))
}

async fn add_header<B: MessageBody>(
    name: &'static str,
    value: &'static str,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let mut response = next.call(request).await?;
    response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    Ok(response)
}

macro_rules! header_middleware {
    ($index:literal) => {
        from_fn(|request, next| add_header(concat!("x-middleware-", $index), $index, request, next))
    };
}

fn configure(config: &mut ServiceConfig) {
    config
        .app_data(PayloadConfig::new(16 * 1024 * 1024))
        .route("/", web::get().to(plaintext))
        .route("/json", web::get().to(message))
        .route("/users/{id}", web::get().to(user))
        .route("/items", web::post().to(items))
        .route("/suspend/sleep", web::get().to(suspend))
        .route("/suspend/future", web::get().to(suspend))
        .route("/stream", web::get().to(stream))
        .route("/upload", web::post().to(upload))
        .route("/download", web::get().to(download));
}

fn configure_routes(config: &mut ServiceConfig) {
    configure(config);
    for index in 0..500 {
        let answer =
            move || async move { HttpResponse::Ok().content_type(TEXT).body(format!("resource {index}")) };
        config.route(&format!("/api/resource{index}/items"), web::get().to(answer));
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).expect("a port").parse().expect("a number");
    let variant = std::env::args().nth(2).unwrap_or_default();
    let address = ("127.0.0.1", port);
    if variant == "middleware" {
        let app = || {
            App::new()
                .wrap(header_middleware!("0"))
                .wrap(header_middleware!("1"))
                .wrap(header_middleware!("2"))
                .wrap(header_middleware!("3"))
                .configure(configure)
        };
        return HttpServer::new(app).workers(1).bind(address)?.run().await;
    }
    let configure = if variant == "routes" { configure_routes } else { configure };
    HttpServer::new(move || App::new().configure(configure)).workers(1).bind(address)?.run().await
}

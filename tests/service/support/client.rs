//! HTTP clients: a well-behaved one, and a bare connection for everything else.

use super::BUSY;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than any answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build().unwrap();
        Self { http, address }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Vec::new()).await
    }

    /// Posts with `content-type: application/json`.
    pub async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.post_as("application/json", path, body).await
    }

    pub async fn post_as(&self, content_type: &str, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send("POST", path, &[("content-type", content_type)], body).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    /// An error where no answer came, which is a fault of the service in most tests.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.http.request(method.parse().unwrap(), url).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Fails unless each record was written, and the answer says where; a record that is only stored is not. The answer.
    #[track_caller]
    pub fn written(&self) -> Value {
        assert_eq!(self.status, 202, "{self:?}");
        let answer = self.json();
        for one in answer["results"].as_array().unwrap_or(&vec![answer.clone()]) {
            let is_placed = one["partition"].is_i64() && one["offset"].is_i64();
            assert!(one["success"] == true && one["stored"].is_null() && is_placed, "{self:?}");
        }
        answer
    }

    /// Fails unless this is a complete problem document with this status and error name.
    #[track_caller]
    pub fn problem(&self, status: u16, error: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["error"], error, "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        for text in ["type", "title", "detail"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {self:?}");
        }
        assert!(["not_written", "unknown"].contains(&problem["outcome"].as_str().unwrap()), "{self:?}");
        assert!(problem["retriable"].is_boolean(), "{self:?}");
        if status == 503 || status == 429 {
            let seconds = self.header("retry-after").expect("Retry-After");
            assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{self:?}");
        }
        problem
    }
}

/// A connection on which a test says what it likes.
pub struct RawConnection(TcpStream);

impl RawConnection {
    pub async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// As [`RawConnection::send`], for a server that may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Whether bytes have come that are not read yet, or the connection has ended.
    pub async fn has_answer(&self) -> bool {
        timeout(Duration::from_millis(1), self.0.peek(&mut [0])).await.is_ok()
    }

    /// Everything up to the end of the connection, which must come within `limit`.
    pub async fn read_to_end(&mut self, limit: Duration) -> String {
        let mut bytes = Vec::new();
        // a reset after the answer is an end, too
        let _ = timeout(limit, self.0.read_to_end(&mut bytes)).await.expect("the connection stays open");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What has come once the text holds `end`.
    pub async fn read_until(&mut self, end: &str, limit: Duration) -> String {
        let mut bytes = Vec::new();
        let read = async {
            let mut chunk = [0; 4096];
            while !String::from_utf8_lossy(&bytes).contains(end) {
                let length = self.0.read(&mut chunk).await.unwrap();
                assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
                bytes.extend_from_slice(&chunk[..length]);
            }
        };
        timeout(BUSY * limit, read).await.expect("the answer comes");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

//! A blocking HTTP client, one connection each: for servers on other threads and in other processes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longest time for one answer.
const LIMIT: Duration = Duration::from_secs(30);

/// One connection, kept alive.
pub struct Socket {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line =
            self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The numbers of an output in an inference answer.
    pub fn output(&self, name: &str) -> Vec<f64> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        let output =
            json["outputs"].as_array().unwrap().iter().find(|output| output["name"] == name).unwrap();
        output["data"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    }
}

impl Socket {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Sends a request; `headers` are whole lines that end with `\r\n`.
    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
        self.write(&[head(method, path, headers, body.len()).as_bytes(), body].concat())
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer; none when the connection ends before it begins.
    pub fn receive(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.more() {
                assert!(self.unread.is_empty(), "cut off: {}", String::from_utf8_lossy(&self.unread));
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            assert!(self.more(), "the body was cut off");
        }
        response.body = self.unread.drain(..length).collect();
        Some(response)
    }

    fn more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                self.unread.extend_from_slice(&chunk[..n]);
                n > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, "", b"").unwrap();
        self.receive().expect("an answer")
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.send("POST", path, "content-type: application/json\r\n", body).unwrap();
        self.receive().expect("an answer")
    }
}

/// The head of a request with a body of so many bytes.
pub fn head(method: &str, path: &str, headers: &str, body_bytes: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {body_bytes}\r\n{headers}\r\n")
}

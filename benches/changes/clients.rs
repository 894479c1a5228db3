//! A closed loop of HTTP clients that count what fails, and one more that asks for changes meanwhile.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{PAUSE, measure::closed_loop::Server};

/// What callers of one kind saw.
#[derive(Debug, Default, Deserialize)]
pub struct Seen {
    pub answered: usize,
    pub failed: usize,
    pub p99_us: f64,
}

impl Seen {
    pub fn of(mut took_ns: Vec<u32>, failed: usize) -> Self {
        took_ns.sort_unstable();
        let p99 = took_ns.get(took_ns.len() * 99 / 100).copied().unwrap_or(u32::MAX);
        Self { answered: took_ns.len(), failed, p99_us: f64::from(p99) / 1e3 }
    }
}

/// What one load measured.
#[derive(Debug)]
pub struct Calls {
    pub http: Seen,
    pub handles: Seen,
    pub changes: usize,
}

/// `connections` HTTP clients for so long, and one that asks for `changes` in turn.
pub fn load(
    server: &Server,
    connections: usize,
    seconds: f64,
    changes: Option<&'static [&'static str]>,
) -> Calls {
    let port = server.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (http, made) = runtime.block_on(async {
        let clients = (0..connections).map(|_| client(port, end));
        let changing = async {
            let mut made = 0;
            for change in changes.into_iter().flatten().cycle() {
                if Instant::now() >= end {
                    break;
                }
                assert!(change_once(port, change).await, "{change} was refused");
                made += 1;
                tokio::time::sleep(PAUSE).await;
            }
            made
        };
        let (seen, made) = tokio::join!(futures_util::future::join_all(clients), changing);
        let (mut took, mut failed) = (Vec::new(), 0);
        for (own, failures) in seen {
            took.extend(own);
            failed += failures;
        }
        (Seen::of(took, failed), made)
    });
    let report = runtime.block_on(get(port, "report")).expect("a report").1;
    Calls { http, handles: serde_json::from_slice(&report).expect("what handles saw"), changes: made }
}

/// Asks for one change and waits for it.
pub fn ask(server: &Server, change: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(change_once(server.port(), change))
}

async fn change_once(port: u16, change: &str) -> bool {
    match get(port, change).await {
        Ok((200, _)) => true,
        other => {
            eprintln!("{change}: {other:?}");
            false
        }
    }
}

async fn get(port: u16, what: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET /change?what={what} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    exchange(&mut stream, request.as_bytes(), &mut Vec::new()).await
}

/// Latencies of one connection in nanoseconds, and how many of its requests were not answered with 200.
async fn client(port: u16, end: Instant) -> (Vec<u32>, usize) {
    let body = br#"{"id":42,"text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#;
    let request = crate::measure::closed_loop::request("/work", "", body);
    let (mut took, mut failed) = (Vec::new(), 0);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let mut buffer = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        match exchange(&mut stream, &request, &mut buffer).await {
            Ok((200, _)) => took.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX)),
            Ok((status, body)) => {
                failed += 1;
                if failed == 1 {
                    eprintln!("{status}: {}", String::from_utf8_lossy(&body));
                }
            }
            Err(error) => {
                eprintln!("{error}");
                failed += 1;
                stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
            }
        }
    }
    (took, failed)
}

/// One request and its answer: status and body.
async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> std::io::Result<(u16, Vec<u8>)> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((status, head, length)) = answer(buffer)
            && buffer.len() >= head + length
        {
            return Ok((status, buffer[head..head + length].to_vec()));
        }
    }
}

/// Status, and the lengths of head and body, once the head is there.
fn answer(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[..end]).expect("a head of text");
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    Some((status, end + 4, length.unwrap_or(0)))
}

//! A closed loop of HTTP clients on one thread, and the server process that they load.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One server in a process of its own.
/// Started from this same program with `kind` as its argument; it prints its port.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it and waits for its port.
    pub fn start(kind: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg(kind)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its port");
        Self { child, port: line.trim().parse().expect("a port") }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Processor time used so far, in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Memory that is its own, pages shared with others counted in part.
    pub fn pss_mib(&self) -> f64 {
        let rollup =
            std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap_or_default();
        let pss = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
        pss.unwrap_or(f64::NAN) / 1024.0
    }

    /// The sum of a counter over all its labels.
    pub fn counter(&self, name: &str) -> f64 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the metrics");
        let rows =
            text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split("} ").nth(1));
        rows.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one load measured.
pub struct Point {
    pub answered: usize,
    pub throughput: f64,
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// A closed loop of `connections`, each with one request on its way; they take `requests` in turn, each from
/// another one on.
pub fn load(server: &Server, connections: usize, requests: &[Vec<u8>], seconds: f64) -> Point {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(("127.0.0.1", server.port)).await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            streams.push(stream);
        }
        let (cpu, start) = (server.cpu(), Instant::now());
        let end = start + Duration::from_secs_f64(seconds);
        #[expect(
            clippy::disallowed_methods,
            reason = "the clients have a multi-threaded runtime to themselves"
        )]
        let tasks: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(i, stream)| {
                let mut own = requests.to_vec();
                own.rotate_left(i * requests.len() / connections);
                tokio::spawn(client(stream, own, end))
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("a client"));
        }
        let (wall, cpu) = (start.elapsed().as_secs_f64(), server.cpu() - cpu);
        all.sort_unstable();
        let (answered, count) = (all.len(), all.len() as f64);
        let at = |q: usize| all.get(answered * q / 100).map_or(f64::NAN, |ns| f64::from(*ns) / 1e3);
        Point {
            answered,
            throughput: count / wall,
            cpu_us: cpu * 1e6 / count,
            p50_us: at(50),
            p99_us: at(99),
        }
    })
}

/// Latencies of one connection, in nanoseconds. Every answer has the length of the first.
async fn client(mut stream: TcpStream, requests: Vec<Vec<u8>>, end: Instant) -> Vec<u32> {
    let mut took = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut length = None;
    for request in requests.iter().cycle() {
        let start = Instant::now();
        if start >= end && !took.is_empty() {
            break;
        }
        stream.write_all(request).await.expect("sent");
        let mut got = 0;
        let mut head = Vec::new();
        while length.is_none_or(|length| got < length) {
            let n = stream.read(&mut buffer).await.expect("received");
            assert!(n > 0, "the server closed the connection");
            got += n;
            if length.is_none() {
                head.extend_from_slice(&buffer[..n]);
                length = answer_length(&head);
            }
        }
        took.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    took
}

fn answer_length(head: &[u8]) -> Option<usize> {
    let end = head.windows(4).position(|w| w == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&head[..end]).expect("a head of text");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let body = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    Some(end + 4 + body.and_then(|n| n.parse::<usize>().ok()).expect("a length"))
}

/// The bytes of a POST of `body`; `headers` are whole lines, each with its end.
pub fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

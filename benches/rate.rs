//! Requests at a fixed rate, whether or not earlier ones have been answered: what a user waits for when
//! he comes at his own time. `wrk` sends the next request when the last is answered, and so leaves out
//! the very moments that the tail is made of.
//!
//! `cargo bench --bench rate -- HOST:PORT PATH REQUESTS_A_SECOND SECONDS` prints one line of JSON:
//! answers, and microseconds from when each request was due to the end of its answer (50%, 99%, most).

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Keep-alive connections, each of which sends its share.
const CONNECTIONS: u32 = 32;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|one| one != "--bench")
        .collect();
    let [address, path, rate, seconds] = &arguments[..] else {
        // `cargo test --benches` and `cargo bench` start it with nothing to do.
        eprintln!("usage: rate HOST:PORT PATH REQUESTS_A_SECOND SECONDS");
        return Ok(());
    };
    let number = |text: &str| text.parse::<u32>().map_err(std::io::Error::other);
    let (rate, seconds) = (number(rate)?, number(seconds)?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let begin = Instant::now() + Duration::from_millis(100);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = request.clone();
        clients.spawn(async move {
            let mut took = Vec::new();
            for number in (client..rate * seconds).step_by(CONNECTIONS as usize) {
                let due = begin + Duration::from_secs(1) * number / rate;
                sleep_until(due).await;
                stream.write_all(request.as_bytes()).await?;
                answer(&mut stream).await?;
                took.push(due.elapsed().as_micros());
            }
            std::io::Result::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(client) = clients.join_next().await {
        took.extend(client.map_err(std::io::Error::other)??);
    }
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
    let (half, slow, most) = (at(500), at(990), at(1000));
    println!(
        "{{\"answers\": {}, \"p50\": {half}, \"p99\": {slow}, \"most\": {most}}}",
        took.len()
    );
    Ok(())
}

/// Reads one 200 with a Content-Length.
async fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        if !head.starts_with("http/1.1 200 ") {
            return Err(std::io::Error::other(format!("not a 200: {head}")));
        }
        if bytes.len() >= end + 4 + length {
            return Ok(());
        }
    }
}

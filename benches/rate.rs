//! Requests at a fixed rate, whether or not earlier ones have been answered: what a user waits for when
//! he comes at his own time. `wrk` sends the next request when the last is answered, and so leaves out
//! the very moments that the tail is made of.
//!
//! A thread a connection: the kernel's sleep is exact to some 50 microseconds, a runtime's timer to a
//! millisecond, which would be most of what is measured.
//!
//! `cargo bench --bench rate -- HOST:PORT PATH REQUESTS_A_SECOND SECONDS` prints one line of JSON:
//! answers, and microseconds from when each request was due to the end of its answer (50%, 99%, most).

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// Keep-alive connections, each of which sends its share.
const CONNECTIONS: u32 = 32;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|one| one != "--bench")
        .collect();
    let [address, path, rate, seconds] = &arguments[..] else {
        // `cargo test --benches` and `cargo bench` start it with nothing to do.
        eprintln!("usage: rate HOST:PORT PATH REQUESTS_A_SECOND SECONDS");
        return Ok(());
    };
    let number = |text: &str| text.parse::<u32>().map_err(Error::other);
    let (rate, seconds) = (number(rate)?, number(seconds)?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let begin = Instant::now() + Duration::from_millis(100);
    let took = thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|client| {
                let request = request.as_bytes();
                scope.spawn(move || -> Result<Vec<u128>> {
                    let mut stream = TcpStream::connect(address)?;
                    stream.set_nodelay(true)?;
                    let mut took = Vec::new();
                    for number in (client..rate * seconds).step_by(CONNECTIONS as usize) {
                        let due = begin + Duration::from_secs(1) * number / rate;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        stream.write_all(request)?;
                        answer(&mut stream)?;
                        took.push(due.elapsed().as_micros());
                    }
                    Ok(took)
                })
            })
            .collect();
        let joined = clients.into_iter().map(|client| {
            let panicked = |_| Error::other("a client panicked");
            client.join().map_err(panicked).flatten()
        });
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut took = took.concat();
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
fn answer(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = Vec::with_capacity(4096);
    let mut piece = [0; 4096];
    loop {
        let got = stream.read(&mut piece)?;
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..got]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        if !head.starts_with("http/1.1 200 ") {
            return Err(Error::other(format!("not a 200: {head}")));
        }
        if bytes.len() >= end + 4 + length {
            return Ok(());
        }
    }
}

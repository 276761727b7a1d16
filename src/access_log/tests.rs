use super::line::{Clock, combined, json};
use super::*;
use std::time::UNIX_EPOCH;

const ASKED: Asked<'_> = Asked {
    remote: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
    method: b"GET",
    target: b"/a.b/c:1/x?y=1",
    version: http::Version::HTTP_11,
    host: Some(b"example.org"),
    referer: None,
    user_agent: Some(b"curl/8"),
};
const ANSWERED: Answered<'_> = Answered {
    status: 200,
    bytes: 1234,
    duration: Duration::from_micros(2_000_345),
    reference: Some("a.b/c:1"),
    cache: Some(Cache::Warm),
};

fn text(format: AccessFormat, asked: &Asked<'_>, answered: &Answered<'_>) -> String {
    let mut clock = Clock::default();
    let now = clock.at(UNIX_EPOCH + Duration::from_millis(784_111_777_042));
    let mut bytes = Vec::new();
    match format {
        AccessFormat::Combined => combined(&mut bytes, &now, asked, answered),
        AccessFormat::Json => json(&mut bytes, &now, asked, answered),
    }
    String::from_utf8(bytes).expect("a line is text")
}

#[test]
fn a_line_of_each_format_is_as_documented() {
    assert_eq!(
        text(AccessFormat::Combined, &ASKED, &ANSWERED),
        "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a.b/c:1/x?y=1 HTTP/1.1\" 200 1234 \"-\" \"curl/8\"\n"
    );
    assert_eq!(
        text(AccessFormat::Json, &ASKED, &ANSWERED),
        "{\"time\":\"1994-11-06T08:49:37.042Z\",\"remote\":\"192.0.2.7\",\"method\":\"GET\",\"target\":\"/a.b/c:1/x?y=1\",\"version\":\"HTTP/1.1\",\"status\":200,\"bytes\":1234,\"duration\":2.000345,\"host\":\"example.org\",\"userAgent\":\"curl/8\",\"reference\":\"a.b/c:1\",\"cache\":\"warm\"}\n"
    );
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_logged_as_what_it_is() {
    let asked = Asked {
        remote: "::ffff:192.0.2.7".parse().unwrap(),
        ..ASKED
    };
    let line = text(AccessFormat::Combined, &asked, &ANSWERED);
    assert!(line.starts_with("192.0.2.7 - "), "{line}");
}

#[test]
fn nothing_that_a_client_sends_leaves_its_field() {
    // What is sent; as it stands in the combined format; what JSON says it is.
    let table: [(&[u8], &str, &str); 8] = [
        (b"plain", "plain", "plain"),
        (b"a\"b", "a\\x22b", "a\"b"),
        (b"a\\b", "a\\x5Cb", "a\\b"),
        (b"a\r\nb", "a\\x0D\\x0Ab", "a\r\nb"),
        (b"\x1b[2J\0\x7f", "\\x1B[2J\\x00\\x7F", "\u{1b}[2J\0\u{7f}"),
        ("ü".as_bytes(), "\\xC3\\xBC", "ü"),
        (b"\xff\xfe", "\\xFF\\xFE", "\u{fffd}\u{fffd}"),
        (
            "\u{85}\u{2028}".as_bytes(),
            "\\xC2\\x85\\xE2\\x80\\xA8",
            "\u{85}\u{2028}",
        ),
    ];
    for (sent, in_combined, in_json) in table {
        for field in 0..3 {
            let mut asked = ASKED;
            match field {
                0 => asked.target = sent,
                1 => asked.referer = Some(sent),
                _ => asked.user_agent = Some(sent),
            }
            let line = text(AccessFormat::Combined, &asked, &ANSWERED);
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert_eq!(line.matches('"').count(), 6, "{line:?}");
            assert!(line.contains(in_combined), "{line:?}");
            assert!(
                line.trim_end()
                    .bytes()
                    .all(|byte| (0x20..0x7f).contains(&byte)),
                "{line:?}"
            );
            let line = text(AccessFormat::Json, &asked, &ANSWERED);
            let raw = line.strip_suffix('\n').unwrap();
            assert!(
                !raw.contains(|c: char| c.is_control() || c == '\u{2028}'),
                "{raw:?}"
            );
            let read: serde_json::Value = serde_json::from_str(raw).unwrap();
            let name = ["target", "referer", "userAgent"][field];
            assert_eq!(read[name], in_json, "{raw}");
        }
    }
}

#[test]
fn a_field_without_an_end_is_cut() {
    let long = vec![b'"'; 1 << 20];
    let asked = Asked {
        user_agent: Some(&long),
        ..ASKED
    };
    for format in [AccessFormat::Combined, AccessFormat::Json] {
        let line = text(format, &asked, &ANSWERED);
        assert!(line.len() < 20_000, "{} bytes", line.len());
        assert!(
            line.contains("...\"\n") || line.contains("…\","),
            "it says so"
        );
    }
}

#[test]
fn the_second_is_written_once_and_the_next_one_anew() {
    let mut clock = Clock::default();
    let mut dates = Vec::new();
    for millis in [999, 1000, 1001, 0] {
        let mut line = Vec::new();
        let now = clock.at(UNIX_EPOCH + Duration::from_millis(millis));
        json(&mut line, &now, &ASKED, &ANSWERED);
        dates.push(String::from_utf8(line[9..33].to_vec()).unwrap());
    }
    let wanted =
        ["00.999Z", "01.000Z", "01.001Z", "00.000Z"].map(|end| format!("1970-01-01T00:00:{end}"));
    assert_eq!(dates, wanted);
}

fn open(file: &std::path::Path) -> (AccessLog, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let config = AccessLogConfig {
        format: AccessFormat::Combined,
        file: Some(file.to_owned()),
    };
    (AccessLog::open(&config, metrics.clone()).unwrap(), metrics)
}

fn lines(file: &std::path::Path) -> usize {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .count()
}

#[test]
fn every_line_of_every_thread_is_in_the_file_when_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log");
    std::fs::write(&file, "there before\n").unwrap();
    let (log, metrics) = open(&file);
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let log = log.clone();
            std::thread::spawn(move || {
                for _ in 0..500 {
                    log.write(&ASKED, &ANSWERED);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    log.close(Duration::from_secs(30));
    assert_eq!(lines(&file), 10_001);
    assert!(
        metrics
            .render()
            .contains("blobserve_access_log_dropped_total 0")
    );
}

#[test]
fn a_line_is_in_the_file_within_a_second_or_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log");
    let (log, _) = open(&file);
    log.write(&ASKED, &ANSWERED);
    let written = std::time::Instant::now();
    while lines(&file) == 0 {
        assert!(written.elapsed() < Duration::from_secs(10), "never");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_that_was_renamed_is_opened_anew_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let (file, rotated) = (directory.path().join("log"), directory.path().join("log.1"));
    let (log, _) = open(&file);
    std::fs::rename(&file, &rotated).unwrap();
    log.reopen();
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    log.write(&ASKED, &ANSWERED);
    log.close(Duration::from_secs(30));
    assert_eq!((lines(&rotated), lines(&file)), (0, 1));
    // One that cannot be opened leaves the old one in use.
    let (log, _) = open(&file);
    std::fs::rename(&file, &rotated).unwrap();
    std::fs::create_dir(&file).unwrap();
    log.reopen();
    log.write(&ASKED, &ANSWERED);
    log.close(Duration::from_secs(30));
    assert_eq!(lines(&rotated), 2);
}

#[test]
fn who_does_not_read_costs_lines_and_not_time() {
    // A pipe that nobody reads from takes 64 KiB, and then its writer waits.
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let (log, metrics) = open(&pipe);
    let lines = 3 * (1 << 20) / text(AccessFormat::Combined, &ASKED, &ANSWERED).len();
    let began = std::time::Instant::now();
    for _ in 0..lines {
        log.write(&ASKED, &ANSWERED);
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let counts = metrics.render();
    let dropped = counts
        .lines()
        .find_map(|line| line.strip_prefix("blobserve_access_log_dropped_total "))
        .and_then(|count| count.parse::<usize>().ok());
    assert!(dropped > Some(lines / 8), "{dropped:?} of {lines}");
    let began = std::time::Instant::now();
    log.close(Duration::from_millis(200));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    drop(reader);
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let config = AccessLogConfig {
        format: AccessFormat::Json,
        file: Some("/nowhere/log".into()),
    };
    let error = AccessLog::open(&config, Arc::new(Metrics::new())).err();
    let error = error.expect("there is no such directory");
    assert!(
        error.starts_with("accessLog.file: /nowhere/log cannot be opened: "),
        "{error}"
    );
}

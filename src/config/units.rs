//! Values with a grammar of their own: durations, sizes, addresses, the memory limit.

use super::{Encodings, Mode};
use crate::oci::Platform;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// # Errors
/// What is wrong with it; no path, no line.
pub(super) fn encodings(text: &str) -> Result<Encodings, String> {
    match text {
        "off" => Ok(Encodings::Off),
        "sidecars" => Ok(Encodings::Sidecars),
        "all" => Ok(Encodings::All),
        _ => Err(format!(
            "{text:?} is not known, write `off`, `sidecars` or `all`"
        )),
    }
}

/// A Go duration text: `5s`, `1m30s`, `1.5h`, `0`.
///
/// # Errors
/// What is wrong with it and how to write it; no path, no line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a duration, write for example \"5s\", \"1m30s\" or \"100ms\"");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.starts_with('-') {
        return Err(format!("{text:?} is negative, write \"0s\" or more"));
    }
    if !rest.is_empty()
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(format!(
            "{text:?} has no unit, write \"{rest}s\" for seconds"
        ));
    }
    let mut nanoseconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|digit: char| !digit.is_ascii_digit() && digit != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let letters = after
            .find(|digit: char| digit.is_ascii_digit() || digit == '.')
            .unwrap_or(after.len());
        let (_, unit) = UNITS
            .iter()
            .find(|(name, _)| *name == &after[..letters])
            .ok_or_else(wrong)?;
        nanoseconds += number * unit;
        rest = &after[letters..];
    }
    bounded(nanoseconds, text)
}

/// A bare number: nanoseconds, as existing installations write them.
///
/// # Errors
/// As [`duration`].
pub(super) fn nanoseconds(number: &str) -> Result<Duration, String> {
    let value: f64 = number
        .parse()
        .map_err(|_| format!("{number} is not a duration, write for example \"5s\""))?;
    if value < 0.0 {
        return Err(format!("{number} is negative, write \"0s\" or more"));
    }
    if value > 0.0 && value < 1e6 {
        return Err(format!(
            "a number without unit is nanoseconds, and {number} of them are less than a millisecond: write \"{number}s\" for seconds"
        ));
    }
    bounded(value, number)
}

fn bounded(nanoseconds: f64, text: &str) -> Result<Duration, String> {
    if nanoseconds > 0.0 && nanoseconds < 1e6 {
        return Err(format!(
            "{text:?} is less than a millisecond, write \"1ms\" or more, or \"0s\""
        ));
    }
    // What Go can hold; what is added to a time stays a time.
    if !(0.0..=i64::MAX as f64).contains(&nanoseconds) {
        return Err(format!("{text:?} is too long, 292 years at most"));
    }
    Ok(Duration::from_nanos(nanoseconds as u64))
}

/// Bytes: digits, with `KiB`, `MiB`, `GiB` or `TiB` after them or nothing.
///
/// # Errors
/// As [`duration`].
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(text.len());
    let shift = match text[digits..].trim_start() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => {
            return Err(format!(
                "{text:?} is not a size, write bytes or for example \"512MiB\" (KiB, MiB, GiB, TiB)"
            ));
        }
    };
    if digits == 0 {
        return Err(format!(
            "{text:?} is not a size, write bytes or for example \"512MiB\""
        ));
    }
    let number = text[..digits].parse::<u64>().ok();
    let size = number.and_then(|number| number.checked_mul(1 << shift));
    // Offsets in files are signed.
    size.filter(|size| *size <= i64::MAX as u64)
        .ok_or_else(|| format!("{text:?} is too large, 8388607TiB at most"))
}

/// Addresses to try in order, the first that binds is the one: `host:port` or `:port`, where
/// the mode says which addresses no host means.
///
/// # Errors
/// As [`duration`].
pub(super) fn address(text: &str, mode: Mode) -> Result<Vec<SocketAddr>, String> {
    let wrong = |why: &str| {
        format!("{text:?} {why}, write for example \"127.0.0.1:8080\", \"[::1]:8080\" or \":8080\"")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits);
    let port: u16 = port.ok_or_else(|| wrong("has no port from 0 to 65535"))?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip: IpAddr = match bare {
        Some(host) => host
            .parse::<Ipv6Addr>()
            .map_err(|_| wrong("is not an IPv6 address"))?
            .into(),
        None if host.is_empty() && mode == Mode::Run => Ipv6Addr::UNSPECIFIED.into(),
        None if host.is_empty() || host.eq_ignore_ascii_case("localhost") => {
            Ipv4Addr::LOCALHOST.into()
        }
        None => host
            .parse::<Ipv4Addr>()
            .map_err(|_| wrong("is not an IP address"))?
            .into(),
    };
    Ok(super::binding_order(SocketAddr::new(ip, port)))
}

/// `os/architecture[/variant]`.
///
/// # Errors
/// As [`duration`].
pub(super) fn platform(text: &str) -> Result<Platform, String> {
    let word = |part: &&str| {
        let known = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
        };
        !part.is_empty() && part.bytes().all(known)
    };
    let mut parts: Vec<&str> = text.split('/').collect();
    // As containerd writes it: `windows(10.0.17763)/amd64`.
    let versioned = parts[0].strip_suffix(')').and_then(|os| os.split_once('('));
    if let Some((os, _)) = versioned {
        parts[0] = os;
    }
    let version = versioned.map(|(_, version)| version);
    match parts[..] {
        [os, architecture, ..]
            if parts.len() <= 3 && parts.iter().all(word) && version.iter().all(word) =>
        {
            Ok(Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: parts.get(2).map(|variant| (*variant).to_owned()),
                os_version: version.map(str::to_owned),
            })
        }
        _ => Err(format!(
            "{text:?} is not a platform, write for example \"linux/amd64\", \"linux/arm/v7\" or \"windows(10.0.17763)/amd64\""
        )),
    }
}

/// A `memoryLimit` in bytes that has no room for a silent download beside one unpack.
pub(super) const LITTLE_MEMORY: u64 = 96 << 20;

/// Half of what our cgroup may use, else 512 MiB. `root` is `/` outside of tests.
pub(super) fn memory_limit(root: &Path) -> u64 {
    const ELSE: u64 = 512 << 20;
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        // v2 has no controllers in this field; a limit of any ancestor binds as well.
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let path = Path::new(path.trim_start_matches('/'));
        let own = path.ancestors().filter_map(|group| {
            let text = std::fs::read_to_string(root.join(mount).join(group).join(file)).ok()?;
            // v1 says "none" by a number next to 2^63.
            text.trim()
                .parse::<u64>()
                .ok()
                .filter(|limit| (1..1 << 60).contains(limit))
        });
        own.min()
    });
    limits.min().map_or(ELSE, |limit| limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let table = [
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("100ms", 100),
            ("1000000ns", 1),
            ("2500us", 2),
            ("1500µs", 1),
            ("0", 0),
            ("0s", 0),
            ("+2s", 2_000),
            ("1h0m.5s", 3_600_500),
        ];
        for (text, milliseconds) in table {
            assert_eq!(
                duration(text).map(|value| value.as_millis()),
                Ok(milliseconds),
                "{text}"
            );
        }
        for text in [
            "", "s", "5", "5x", "5 s", "-5s", "1..5s", ".s", "5s5", "999us", "1ns", "9999999h",
            "1e3s", "५s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(
            duration("30").unwrap_err(),
            "\"30\" has no unit, write \"30s\" for seconds"
        );
    }

    #[test]
    fn a_bare_number_is_nanoseconds() {
        assert_eq!(nanoseconds("5000000000"), Ok(Duration::from_secs(5)));
        assert_eq!(nanoseconds("5e9"), Ok(Duration::from_secs(5)));
        assert_eq!(nanoseconds("0"), Ok(Duration::ZERO));
        let error = nanoseconds("30").unwrap_err();
        assert!(
            error.contains("nanoseconds") && error.contains("\"30s\""),
            "{error}"
        );
        for number in ["-1", "1e30", ".inf", ".nan", "0x10"] {
            assert!(nanoseconds(number).is_err(), "{number}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_suffix() {
        let table = [
            ("0", 0),
            ("1024", 1024),
            ("1KiB", 1024),
            ("4 MiB", 4 << 20),
            ("16GiB", 16 << 30),
            ("2TiB", 2 << 40),
        ];
        for (text, size) in table {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "1.5GiB",
            "1GB",
            "1Gi",
            "1gib",
            "99999999999999999999",
            "9999999999TiB",
            "1e3",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_without_host_is_loopback_for_serve_and_all_for_run() {
        let table = [
            (":9500", "127.0.0.1:9500", "[::]:9500 0.0.0.0:9500"),
            ("localhost:9500", "127.0.0.1:9500", "127.0.0.1:9500"),
            ("0.0.0.0:80", "0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:80", "[::]:80 0.0.0.0:80", "[::]:80 0.0.0.0:80"),
            ("[::1]:0", "[::1]:0", "[::1]:0"),
        ];
        for (text, serve, run) in table {
            for (mode, wanted) in [(Mode::Serve, serve), (Mode::Run, run)] {
                let addresses = address(text, mode).unwrap_or_else(|error| panic!("{error}"));
                let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
                assert_eq!(addresses.join(" "), wanted, "{text} {mode:?}");
            }
        }
        for text in [
            "",
            "8080",
            "127.0.0.1",
            "::1:80",
            "host.example:80",
            "1.2.3.4:http",
            "1.2.3.4:65536",
            "1.2.3.4:+1",
            "[::1:80",
        ] {
            assert!(address(text, Mode::Serve).is_err(), "{text}");
        }
    }

    #[test]
    fn a_platform_has_two_parts_or_three() {
        let arm = Platform {
            os: "linux".into(),
            architecture: "arm".into(),
            variant: Some("v7".into()),
            os_version: None,
        };
        assert_eq!(platform("linux/arm/v7"), Ok(arm));
        let windows = platform("windows(10.0.17763)/amd64").unwrap();
        assert_eq!(windows.os_version.as_deref(), Some("10.0.17763"));
        assert_eq!(windows.to_string(), "windows(10.0.17763)/amd64");
        assert_eq!(
            platform("linux/amd64").map(|platform| platform.variant),
            Ok(None)
        );
        for text in [
            "",
            "linux",
            "linux/",
            "linux/arm/v7/x",
            "Linux/amd64",
            "linux/amd 64",
            "windows()/amd64",
            "windows(10/amd64",
        ] {
            assert!(platform(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_memory_limit_is_half_of_the_tightest_cgroup_or_512_mib() {
        type Files = &'static [(&'static str, &'static str)];
        let table: &[(&str, Files, u64)] = &[
            ("", &[], 512 << 20),
            (
                "0::/\n",
                &[("sys/fs/cgroup/memory.max", "max\n")],
                512 << 20,
            ),
            (
                "0::/\n",
                &[("sys/fs/cgroup/memory.max", "67108864\n")],
                32 << 20,
            ),
            (
                "0::/a/b\n",
                &[
                    ("sys/fs/cgroup/a/memory.max", "1000\n"),
                    ("sys/fs/cgroup/a/b/memory.max", "4000\n"),
                ],
                500,
            ),
            (
                "4:cpu,memory:/x\n0::/\n",
                &[("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n")],
                1000,
            ),
            (
                "4:memory:/\n",
                &[(
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                )],
                512 << 20,
            ),
        ];
        for (groups, files, limit) in table {
            let root = tempfile::tempdir().unwrap();
            let all = files.iter().copied().chain([("proc/self/cgroup", *groups)]);
            for (path, text) in all {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            assert_eq!(memory_limit(root.path()), *limit, "{groups:?} {files:?}");
        }
    }
}

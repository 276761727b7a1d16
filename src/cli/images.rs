//! `images` and `image show|rm|pin|unpin`: the catalogue, asked of the running server through its
//! control socket, or read from disk, under the blobspace's lock, where none runs.

use crate::blobspace::{Blobspace, Tuning};
use crate::config::{self, Mode};
use crate::control;
use crate::images::{Catalogue, Command, ImageRecord, LayerState};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The directory of ours in `blobSpace.location`.
const OWN: &str = "blobserve-v1";
/// How long to wait for a server that is starting or ending: it has the lock, and no socket.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Digits of an ID in the list.
const SHORT: usize = 12;

/// Carries out the command on the blobspace of that configuration, and prints what it returns.
pub(super) fn images(path: &Path, mode: Mode, command: &Command, json: bool) -> ExitCode {
    match executed(path, mode, command) {
        Ok(images) => {
            let text = match json {
                true => as_json(command, &images),
                false => as_text(command, &images, SystemTime::now()),
            };
            let mut out = std::io::stdout().lock();
            // Whoever closed our standard output does not want the rest.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("blobserve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn executed(path: &Path, mode: Mode, command: &Command) -> Result<Vec<ImageRecord>, String> {
    let loaded = config::load(path, mode).map_err(|error| error.to_string())?;
    let space = loaded.config.blob_space;
    let root = space.location.join(OWN);
    if let Some(answer) = control::ask(&root, command) {
        return answer;
    }
    // Opening makes it, and then it is ours and not the server's user's.
    if !root.exists() {
        let root = root.display();
        return Err(format!(
            "{root} is not there: nothing was served from this blobSpace.location yet"
        ));
    }
    let tuning = Tuning {
        lock_wait: LOCK_WAIT,
        // Whoever looks drops none, whatever the configuration says by now.
        source_bytes: u64::MAX,
        ..Tuning::default()
    };
    let blobspace = Blobspace::open_tuned(&space.location, space.max_size_bytes, tuning)
        .map_err(|error| error.to_string())?;
    let answer = Catalogue::new(blobspace.clone()).execute(command);
    blobspace.close();
    answer
}

fn as_json(command: &Command, images: &[ImageRecord]) -> String {
    let text = match (command, images) {
        (Command::List, images) => serde_json::to_string_pretty(images),
        (_, [image]) => serde_json::to_string_pretty(image),
        (_, images) => serde_json::to_string_pretty(images),
    };
    // Texts and numbers: nothing in it that JSON cannot say.
    text.unwrap_or_default() + "\n"
}

fn as_text(command: &Command, images: &[ImageRecord], now: SystemTime) -> String {
    match command {
        Command::List => table(images, now),
        Command::Show(_) => images.iter().map(|image| shown(image, now)).collect(),
        Command::Rm(what) => format!("removed {what}\n"),
        Command::Pin(what) => format!("pinned {what}\n"),
        Command::Unpin(what) => format!("unpinned {what}\n"),
    }
}

fn table(images: &[ImageRecord], now: SystemTime) -> String {
    let mut rows = vec![
        [
            "ID",
            "SIZE",
            "ON DISK",
            "PLATFORM",
            "LAST USED",
            "PINNED",
            "REFERENCE",
        ]
        .map(str::to_owned),
    ];
    for image in images {
        for (number, reference) in image.references.iter().enumerate() {
            let first = |text: String| if number == 0 { text } else { String::new() };
            let pinned = match why_pinned(image, reference) {
                Some(Why::Command) => "yes",
                Some(Why::Retain) => "retain",
                None => "",
            };
            rows.push([
                first(short(&image.id).to_owned()),
                first(image.size.map_or("-".into(), bytes)),
                first(bytes(image.unpacked + image.compressed)),
                first(image.platform.clone().unwrap_or("-".into())),
                first(ago(image.last_used, now)),
                pinned.to_owned(),
                reference.clone(),
            ]);
        }
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn shown(image: &ImageRecord, now: SystemTime) -> String {
    let mut text = String::new();
    let unknown = || "-".to_owned();
    let mut line = |name: &str, value: &str| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name:11}{value}");
    };
    line("ID", &image.id);
    for reference in &image.references {
        let pinned = match why_pinned(image, reference) {
            Some(Why::Command) => " (pinned)",
            Some(Why::Retain) => " (pinned by `retain`)",
            None => "",
        };
        line("reference", &format!("{reference}{pinned}"));
    }
    line("manifest", &image.manifest);
    line("chain ID", &image.chain_id.clone().unwrap_or_else(unknown));
    if let Some(artifact_type) = &image.artifact_type {
        line("artifact", &visible(artifact_type));
    }
    for (name, value) in &image.annotations {
        // A stranger's text: on a terminal it stays one line, and commands nothing.
        line(
            "annotation",
            &format!("{}={}", visible(name), visible(value)),
        );
    }
    line("platform", &image.platform.clone().unwrap_or_else(unknown));
    line("size", &image.size.map_or_else(unknown, bytes));
    let kept = match image.compressed {
        0 => String::new(),
        kept => format!(", and {} compressed", bytes(kept)),
    };
    line("on disk", &format!("{}{kept}", bytes(image.unpacked)));
    line("last used", &ago(image.last_used, now));
    for layer in &image.layers {
        let state = match layer.state {
            LayerState::Unknown => "unknown",
            LayerState::Fetching => "fetching",
            LayerState::Sealed => "sealed",
            LayerState::Evicted => "evicted",
        };
        let (digest, size, kind) = (&layer.digest, bytes(layer.size), &layer.media_type);
        line("layer", &format!("{digest} {state}, {size}, {kind}"));
        if let Some(kept) = layer.compressed {
            let text = format!("kept compressed, {} on disk", bytes(kept));
            line("  blob", &text);
        }
        if let Some(diff_id) = &layer.diff_id {
            line("  diff ID", diff_id);
        }
        if let Some(chain_id) = &layer.chain_id {
            line("  chain ID", chain_id);
        }
    }
    if let Some(configuration) = &image.configuration {
        line("config", "");
        text += &serde_json::to_string_pretty(configuration).unwrap_or_default();
        text.push('\n');
    }
    text
}

fn visible(text: &str) -> String {
    let escaped = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    escaped.collect()
}

/// What pins a reference.
enum Why {
    Command,
    Retain,
}

fn why_pinned(image: &ImageRecord, reference: &String) -> Option<Why> {
    let is_retained = image.retained_references.contains(reference);
    let is_pinned = image.pinned_references.contains(reference);
    match (is_retained, is_pinned) {
        (true, _) => Some(Why::Retain),
        (false, true) => Some(Why::Command),
        (false, false) => None,
    }
}

fn short(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..SHORT).unwrap_or(hex)
}

/// With three digits, in units of 1024.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            let digits = usize::from(value < 10.0 && unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

fn ago(last_used: Option<u64>, now: SystemTime) -> String {
    let Some(last_used) = last_used else {
        return "-".into();
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match now.saturating_sub(last_used) {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_say_stays_on_its_line() {
        for (text, shown) in [
            ("a b", "a b"),
            ("ü\u{1b}[2J\n\u{9b}0m", "ü\\u{1b}[2J\\n\\u{9b}0m"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [0, 999, 1000, 10 << 10, 5_500_000, 3 << 30, 2 << 40].map(bytes);
        let expected = [
            "0 B", "999 B", "1.0 KiB", "10 KiB", "5.2 MiB", "3.0 GiB", "2.0 TiB",
        ];
        assert_eq!(sizes, expected);
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ages = [0, 119, 120, 7199, 7200, 172_800].map(|age| ago(Some(1_000_000 - age), now));
        let expected = [
            "0 s ago",
            "119 s ago",
            "2 min ago",
            "119 min ago",
            "2 h ago",
            "2 days ago",
        ];
        assert_eq!(ages, expected);
        assert_eq!(ago(None, now), "-");
    }
}

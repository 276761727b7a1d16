//! Dates of the civil calendar (proleptic Gregorian, UTC).

use std::fmt::Write;

/// A moment, in parts.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// Of the day.
    seconds: i64,
}

/// None: a year that is not of four digits.
fn civil(mtime: i64) -> Option<Civil> {
    // Days since 0000-03-01: a year that starts in March has its leap day at its end.
    let days = mtime.div_euclid(86_400).checked_add(719_468)?;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (0..=9999).contains(&year).then_some(Civil {
        year,
        month,
        day: day_of_year - (153 * shifted + 2) / 5 + 1,
        seconds: mtime.rem_euclid(86_400),
    })
}

/// `2023-11-14T22:13:20Z` (RFC 3339).
pub(super) fn rfc3339(mtime: i64) -> Option<String> {
    let Civil {
        year,
        month,
        day,
        seconds,
    } = civil(mtime)?;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

/// Appends `2023-11-14 22:13`, or nothing.
pub(super) fn push_minutes(out: &mut String, mtime: i64) {
    if let Some(Civil {
        year,
        month,
        day,
        seconds,
    }) = civil(mtime)
    {
        let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
        // A String takes whatever is written to it.
        let _ = write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (mtime, text) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (951_782_400, Some("2000-02-29T00:00:00Z")),
            (1_709_251_199, Some("2024-02-29T23:59:59Z")),
            (1_700_000_000, Some("2023-11-14T22:13:20Z")),
            (-1, Some("1969-12-31T23:59:59Z")),
            (4_107_542_400, Some("2100-03-01T00:00:00Z")),
            (253_402_300_799, Some("9999-12-31T23:59:59Z")),
            (253_402_300_800, None),
            (-62_167_219_200, Some("0000-01-01T00:00:00Z")),
            (-62_167_219_201, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(rfc3339(mtime).as_deref(), text, "{mtime}");
            let mut minutes = String::new();
            push_minutes(&mut minutes, mtime);
            let expected = text.map(|text| text[..16].replace('T', " "));
            assert_eq!(minutes, expected.unwrap_or_default(), "{mtime}");
        }
    }
}

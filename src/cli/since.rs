//! Times as operators write them: a day or an instant, in UTC.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// `2026-01-31` is its beginning.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    let day = |day: Date| day.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    // A date parser takes the day out of more than a day; half an instant is a mistake, not a midnight.
    let is_day = text.len() == "2026-01-31".len();
    text.parse::<Timestamp>()
        .or_else(|error| if is_day { text.parse::<Date>().and_then(day) } else { Err(error) })
        .map_err(|_| "neither a day (2026-01-31) nor an instant (2026-01-31T12:00:00Z)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(parse("2026-01-31"), parse("2026-01-31T00:00:00Z"));
        assert!(parse("2026-01-31T12:00:00+01:00").is_ok());
        for bad in ["", "yesterday", "2026-13-01", "2026-01-31T12:00"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

//! How numbers, times and other people's words look on a page. Pure.
//!
//! Templates escape everything; this makes visible what could deceive the eye: controls, characters that
//! change the direction of writing or cannot be seen. Long texts are cut and say so.

use jiff::Timestamp;
use maud::{Markup, html};

/// Characters of a reply or a reason.
pub(super) const TEXT_MAX: usize = 600;
/// Characters of a name or an address in a table.
pub(super) const NAME_MAX: usize = 120;

/// Somebody else's words: cut at `max` characters, with a note of how many were left out.
pub(super) fn foreign(text: &str, max: usize) -> Markup {
    let mut pieces: Vec<Result<String, char>> = Vec::new();
    for c in text.chars().take(max) {
        if is_hidden(c) {
            pieces.push(Err(c));
        } else if let Some(Ok(plain)) = pieces.last_mut() {
            plain.push(c);
        } else {
            pieces.push(Ok(c.to_string()));
        }
    }
    let more = text.chars().count().saturating_sub(max);
    html! {
        bdi {
            @for piece in &pieces {
                @match piece {
                    Ok(plain) => (plain),
                    Err(hidden) => span.hidden { (format!("U+{:04X}", u32::from(*hidden))) },
                }
            }
        }
        @if more > 0 { span.cut { " … " (count(more as u64)) " more characters" } }
    }
}

/// A name or an address.
pub(super) fn name(text: &str) -> Markup {
    foreign(text, NAME_MAX)
}

/// A sentence.
pub(super) fn words(text: &str) -> Markup {
    foreign(text, TEXT_MAX)
}

/// Controls, marks that turn the direction of writing, and what has no width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// `12,345`
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 item`, `2 items`
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `12 kB`
pub(super) fn octets(number: u64) -> String {
    match number {
        0..1000 => format!("{number} B"),
        1000..1_000_000 => format!("{} kB", number / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.1} GB", number as f64 / 1e9),
    }
}

/// `45 s`, `3 min`, `2 h`, `5 days`: the time between two instants, in its largest unit.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    span(to.duration_since(from).as_secs().unsigned_abs())
}

/// So many seconds, in the largest unit that tells two of them apart.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A round number of seconds: `10 min`, `1 h`, `2 days`.
pub(super) fn round(seconds: u64) -> String {
    match seconds {
        86_400 => "1 day".to_owned(),
        _ if seconds > 0 && seconds.is_multiple_of(86_400) => format!("{} days", seconds / 86_400),
        _ if seconds > 0 && seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ => span(seconds),
    }
}

/// `2026-01-31 12:00:05 UTC`
pub(super) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn machine(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// `3 min ago`, `in 2 h`; the instant itself as its title.
pub(super) fn when(at: Timestamp, now: Timestamp) -> Markup {
    let text =
        if at > now { format!("in {}", between(now, at)) } else { format!("{} ago", between(at, now)) };
    html! { time datetime=(machine(at)) title=(instant(at)) { (text) } }
}

/// `2026-01-31 12:00:05 UTC (3 min ago)`
pub(super) fn exactly(at: Timestamp, now: Timestamp) -> Markup {
    let text =
        if at > now { format!("in {}", between(now, at)) } else { format!("{} ago", between(at, now)) };
    html! { time datetime=(machine(at)) { (instant(at)) } " " span.quiet { "(" (text) ")" } }
}

/// Just the instant.
pub(super) fn stamp(at: Timestamp) -> Markup {
    html! { time datetime=(machine(at)) { (instant(at)) } }
}

/// `12.3 %`, of what may be nothing.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    // What is there is not told as nothing, and what is not all not as all.
    match percent {
        _ if part > 0 && percent < 0.1 => "< 0.1 %".to_owned(),
        _ if part < whole && percent > 99.9 => "> 99.9 %".to_owned(),
        _ => format!("{percent:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_words_are_escaped_made_visible_and_cut() {
        let shown = foreign("<script>alert(\"x\")</script>'&", 100).into_string();
        assert_eq!(shown, "<bdi>&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;'&amp;</bdi>");
        let shown = foreign("a\u{202e}gpj.exe\u{0}\r\n\u{200b}", 100).into_string();
        assert!(!shown.contains(['\u{202e}', '\0', '\r', '\n', '\u{200b}']), "{shown:?}");
        assert!(shown.contains("U+202E") && shown.contains("U+0000") && shown.contains("gpj.exe"), "{shown}");
        let shown = words(&"550 no ".repeat(1500)).into_string();
        assert!(shown.len() < 800 && shown.contains("9,900 more characters"), "{shown}");
        assert!(name("бюро.例え.テスト").into_string().contains("бюро.例え.テスト"));
    }

    #[test]
    fn numbers_and_times_are_told_shortly() {
        assert_eq!(
            (count(0), count(999), count(1000), count(1_234_567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!(counted(1, "item", "items"), "1 item");
        assert_eq!([600, 3600, 86_400, 172_800, 90].map(round), ["10 min", "1 h", "1 day", "2 days", "90 s"]);
        assert_eq!(
            (octets(999), octets(12_345), octets(12_345_678)),
            ("999 B".into(), "12 kB".into(), "12.3 MB".into())
        );
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-10T12:00:00Z");
        assert_eq!(
            when(at("2026-01-10T11:57:00.5Z"), now).into_string(),
            "<time datetime=\"2026-01-10T11:57:00Z\" title=\"2026-01-10 11:57:00 UTC\">2 min ago</time>"
        );
        assert!(exactly(at("2026-01-12T13:00:00Z"), now).into_string().contains("(in 2 days)"));
        for (part, whole, told) in [
            (0, 0, "–"),
            (0, 10, "0.0 %"),
            (1, 3, "33.3 %"),
            (1, 1_000_000, "< 0.1 %"),
            (999_999, 1_000_000, "> 99.9 %"),
            (5, 5, "100.0 %"),
        ] {
            assert_eq!(share(part, whole), told);
        }
    }
}

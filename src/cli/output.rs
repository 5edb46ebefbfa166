//! How verbs print: tables within 100 columns for people, one JSON object a line for programs.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use jiff::Timestamp;
use serde::Serialize;

/// Human output stays within this.
pub(super) const COLUMNS: usize = 100;

/// Standard output, buffered; a reader that went away ends the output without an error.
pub(super) struct Output {
    out: BufWriter<io::StdoutLock<'static>>,
    closed: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), closed: false }
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.write_all(b"\n"));
        self.ended(written)
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.ended(flushed)
    }

    fn ended(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            // `stsrelay queue list | head` is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }
}

/// One line per error on standard error.
pub(super) fn errors(lines: &[String]) {
    for line in lines {
        // Nothing is left to tell if standard error is closed.
        let _ = writeln!(io::stderr(), "stsrelay: {line}");
    }
}

/// Tells a person that something slow has begun.
pub(super) fn progress(text: &str) {
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// A table: a heading, rows of the same number of cells, and the one column that is cut when the
/// rows are too wide. A row may have a line of its own below it.
pub(super) struct Table {
    heading: Vec<&'static str>,
    flexible: usize,
    rows: Vec<(Vec<String>, Option<String>)>,
    /// Of what was taken before; empty before that.
    widths: Vec<usize>,
}

impl Table {
    pub(super) fn new(heading: &[&'static str], flexible: usize) -> Self {
        Self { heading: heading.to_vec(), flexible, rows: Vec::new(), widths: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<String>, below: Option<String>) {
        self.rows.push((cells, below));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the rows so far, with the heading at the first time, for tables too long to be held. A
    /// column grows with its cells and never shrinks.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        let first = self.widths.is_empty();
        let widths = self.fitted();
        let heading = first.then(|| self.heading_line(&widths));
        let lines = heading.into_iter().chain(self.row_lines(&widths)).collect();
        self.rows.clear();
        self.widths = widths;
        lines
    }

    /// The lines, none wider than [`COLUMNS`].
    pub(super) fn lines(&self) -> Vec<String> {
        let widths = self.fitted();
        std::iter::once(self.heading_line(&widths)).chain(self.row_lines(&widths)).collect()
    }

    fn fitted(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heading.iter().map(|cell| width(cell)).collect();
        for (widest, before) in widths.iter_mut().zip(&self.widths) {
            *widest = (*widest).max(*before);
        }
        for (cells, _) in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(cells) {
                *widest = (*widest).max(width(cell));
            }
        }
        let others: usize =
            widths.iter().enumerate().filter(|(i, _)| *i != self.flexible).map(|(_, width)| width + 2).sum();
        if let Some(flexible) = widths.get_mut(self.flexible) {
            *flexible = (*flexible).min(COLUMNS.saturating_sub(others)).max(8);
        }
        widths
    }

    fn heading_line(&self, widths: &[usize]) -> String {
        let heading: Vec<String> = self.heading.iter().map(|&cell| cell.to_owned()).collect();
        format_row(&heading, widths)
    }

    fn row_lines(&self, widths: &[usize]) -> Vec<String> {
        let mut lines = Vec::new();
        for (cells, below) in &self.rows {
            lines.push(format_row(cells, widths));
            lines.extend(below.as_ref().map(|text| cut(&format!("  {text}"), COLUMNS)));
        }
        lines
    }
}

fn format_row(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width_wanted) in cells.iter().zip(widths) {
        let cell = cut(cell, *width_wanted);
        line.push_str(&cell);
        line.push_str(&" ".repeat(width_wanted.saturating_sub(width(&cell)) + 2));
    }
    cut(line.trim_end(), COLUMNS)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// At most `max` characters, the last one `…` when something is left out. Control characters, which a
/// remote host's reply may hold, never reach the terminal.
pub(super) fn cut(text: &str, max: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { '?' } else { c });
    if width(text) <= max {
        return clean.collect();
    }
    clean.take(max.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks a text at spaces into lines of at most [`COLUMNS`]; the first begins with `label`, the others
/// are indented as far.
pub(super) fn wrap(label: &str, text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut line, mut words) = (label.to_owned(), 0);
    for word in text.split_whitespace() {
        if words > 0 && width(&line) + 1 + width(word) > COLUMNS {
            lines.push(std::mem::replace(&mut line, " ".repeat(width(label))));
            words = 0;
        }
        if words > 0 {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        words += 1;
    }
    lines.push(line);
    lines
}

/// `3m`, `2h`, `5d`: the time between two instants, in its largest unit.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().unsigned_abs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `in 3m`, `3m ago`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", between(now, at)) } else { format!("{} ago", between(at, now)) }
}

/// `2026-01-31T12:00:00Z`
pub(super) fn instant(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// `12 KB`
pub(super) fn octets(count: u64) -> String {
    match count {
        0..1000 => format!("{count} B"),
        1000..1_000_000 => format!("{} KB", count / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stay_within_their_columns() {
        let mut table = Table::new(&["ID", "SENDER", "TO"], 1);
        table.row(vec!["1".into(), "s".repeat(200), "example.org".into()], Some("x".repeat(300)));
        table.row(vec!["2".into(), "short".into(), "例え.テスト".into()], None);
        let lines = table.lines();
        assert!(lines.iter().all(|line| width(line) <= COLUMNS), "{lines:#?}");
        assert!(lines[1].contains('…') && lines[1].ends_with("example.org"), "{}", lines[1]);
    }

    #[test]
    fn a_long_table_is_printed_piece_by_piece_under_one_heading() {
        let mut table = Table::new(&["A", "B"], 1);
        table.row(vec!["wide".into(), "x".into()], None);
        assert_eq!(table.take_lines(), ["A     B", "wide  x"]);
        table.row(vec!["n".into(), "y".into()], Some("why".into()));
        assert_eq!(table.take_lines(), ["n     y", "  why"]);
        assert!(table.take_lines().is_empty());
    }

    #[test]
    fn a_remote_hosts_words_cannot_steer_the_terminal() {
        assert_eq!(cut("550 \x1b[2Jgone", 100), "550 ?[2Jgone");
        assert_eq!(wrap("- ", "a\x07  b"), ["- a? b"]);
    }

    #[test]
    fn long_texts_are_wrapped_at_spaces() {
        let lines = wrap("to  ", &"word ".repeat(60));
        assert!(lines.iter().all(|line| width(line) <= COLUMNS), "{lines:#?}");
        assert!(lines[1].starts_with("    word"), "{lines:#?}");
        assert_eq!(lines.iter().map(|l| l.matches("word").count()).sum::<usize>(), 60);
    }

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-10T12:00:00Z");
        assert_eq!(relative(at("2026-01-10T12:05:00Z"), now), "in 5m");
        assert_eq!(relative(at("2026-01-10T11:59:30Z"), now), "30s ago");
        assert_eq!(relative(at("2026-01-01T12:00:00Z"), now), "9d ago");
    }
}

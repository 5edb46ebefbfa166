//! Files of checksummed lines: `crc32 json`, after a first line that names kind and format.
//!
//! JSON never contains a raw line end, so whatever is damaged costs the lines it touches and no
//! other. Pure.

use super::format;

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines<'a> {
    /// The JSON of every whole line.
    pub values: Vec<&'a [u8]>,
    /// Of an older format: to be written anew.
    pub older: bool,
    /// Lines that were damaged.
    pub damaged: usize,
    /// Whether it ends in the middle of a line, as a write that was interrupted leaves it.
    pub torn: bool,
}

/// The first line of a file of this kind.
pub(super) fn header(kind: &str) -> String {
    format!("stsrelay {kind} {}\n", format::LINES)
}

/// Appends a line.
pub(super) fn render(json: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{:08x} ", crc32fast::hash(json)).as_bytes());
    out.extend_from_slice(json);
    out.push(b'\n');
}

/// Reads a file.
///
/// # Errors
/// The format, when it is newer than ours.
pub(super) fn parse<'a>(bytes: &'a [u8], kind: &str) -> Result<Lines<'a>, u32> {
    let mut lines = Lines::default();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else {
            lines.torn = true;
            continue;
        };
        if index == 0
            && let Some((_, format)) = first_line(line).filter(|(of, _)| *of == kind)
        {
            if format > format::LINES {
                return Err(format);
            }
            lines.older = format < format::LINES;
            continue;
        }
        match value(line) {
            Some(value) => lines.values.push(value),
            None => lines.damaged += 1,
        }
    }
    Ok(lines)
}

/// What kind of file this is the beginning of, and its format.
pub(super) fn first_line(bytes: &[u8]) -> Option<(&str, u32)> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let (kind, format) = std::str::from_utf8(line).ok()?.strip_prefix("stsrelay ")?.split_once(' ')?;
    Some((kind, format.parse().ok()?))
}

fn value(line: &[u8]) -> Option<&[u8]> {
    let (sum, json) = line.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum.strip_suffix(b" ")?).ok()?;
    (u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json)).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(values: &[&str]) -> Vec<u8> {
        let mut bytes = header("test").into_bytes();
        values.iter().for_each(|value| render(value.as_bytes(), &mut bytes));
        bytes
    }

    #[test]
    fn damage_costs_one_line_wherever_it_is() {
        let good = file(&["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
        let all = parse(&good, "test").unwrap();
        assert_eq!((all.values.len(), all.damaged, all.torn), (3, 0, false));
        let second = file(&["{\"a\":1}"]).len();
        let third = file(&["{\"a\":1}", "{\"b\":2}"]).len();
        for at in second..third {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let lines = parse(&bytes, "test").unwrap();
            assert!(lines.values.contains(&&b"{\"a\":1}"[..]), "octet {at}");
            assert!(!lines.values.contains(&&b"{\"b\":2}"[..]), "octet {at}");
            assert!(lines.damaged > 0, "octet {at}");
            let torn = parse(&good[..at], "test").unwrap();
            assert_eq!((torn.values.len(), torn.torn), (1, at > second), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_a_damaged_header_is_a_damaged_line() {
        assert_eq!(parse(b"stsrelay test 2\n", "test"), Err(2));
        let mut bytes = file(&["{}"]);
        bytes[0] = b'S';
        let lines = parse(&bytes, "test").unwrap();
        assert_eq!((lines.values.len(), lines.damaged), (1, 1));
        assert_eq!(parse(b"", "test").unwrap(), Lines::default());
    }
}

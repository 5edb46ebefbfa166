//! One JSON value per line with a checksum in front: the form of the store's small logs.
//!
//! A line is `CRC32 in 8 hex digits`, blank, JSON, line feed. JSON never contains a raw line feed, so
//! that damage costs the lines it hits and no other. Used by `ledger` and `results`.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends a value's line to `out`.
///
/// # Errors
/// What serde_json says; none for the types kept here.
pub(super) fn push<T: Serialize>(out: &mut Vec<u8>, value: &T) -> Result<(), serde_json::Error> {
    let json = serde_json::to_vec(value)?;
    out.extend_from_slice(format!("{:08x} ", crc32fast::hash(&json)).as_bytes());
    out.extend_from_slice(&json);
    out.push(b'\n');
    Ok(())
}

/// Reads all whole lines; returns the values, and how many lines were damaged or unfinished.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> (Vec<T>, usize) {
    let mut values = Vec::new();
    let mut damaged = 0;
    for line in text.split_inclusive(|b| *b == b'\n') {
        match parse(line) {
            Some(value) => values.push(value),
            None => damaged += 1,
        }
    }
    (values, damaged)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum.strip_suffix(b" ")?).ok()?;
    let wanted = u32::from_str_radix(checksum, 16).ok()?;
    if crc32fast::hash(json) != wanted {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_costs_the_line_it_hits_and_no_other() {
        let mut text = Vec::new();
        for value in ["a", "b\nc", "d"] {
            push(&mut text, &value).expect("text is JSON");
        }
        assert_eq!(read::<String>(&text), (vec!["a".into(), "b\nc".into(), "d".into()], 0));
        for at in 0..text.len() {
            let mut garbled = text.clone();
            garbled[at] ^= 0x20;
            let (values, damaged) = read::<String>(&garbled);
            assert!(values.len() >= 1 && damaged >= 1, "octet {at}");
            assert!(values.iter().all(|value| ["a", "b\nc", "d"].contains(&value.as_str())), "octet {at}");
            let (values, _) = read::<String>(&text[..at]);
            assert!(values.len() <= 2, "an unfinished line is no value");
        }
    }
}

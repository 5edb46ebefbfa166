//! The TXT records at `_mta-sts`, one a line.

use stsrelay::sts::record::{self, ID_BYTES_MAX, RecordError};

/// Records at a name at most, as one reply holds them.
const RECORDS_MAX: usize = 64;

pub fn run(data: &[u8]) {
    let txts: Vec<&[u8]> = data.split(|&b| b == b'\n').take(RECORDS_MAX).collect();
    let answer = record::parse(&txts);
    // RFC 8461 §3.1: records of something else are dropped, exactly one must remain.
    let survivors: Vec<&[u8]> = txts.iter().copied().filter(|txt| is_survivor(txt)).collect();
    match (&answer, survivors.as_slice()) {
        (Err(RecordError::Absent), []) | (Err(RecordError::Malformed(_)), [_]) => {}
        (Err(RecordError::Several), [_, _, ..]) => {}
        (Ok(found), [only]) => {
            let id = found.id.as_bytes();
            assert!((1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_alphanumeric));
            assert!(only.windows(id.len() + 3).any(|part| part.strip_prefix(b"id=") == Some(id)));
            // §3.2: what it does not know, and a second id, change nothing.
            let mut longer = only.to_vec();
            if !longer.trim_ascii_end().ends_with(b";") {
                longer.push(b';');
            }
            longer.extend_from_slice(b" id=another; a_new.key-1=value");
            assert_eq!(record::parse(&[longer]).as_ref(), Ok(found));
        }
        (answer, survivors) => panic!("{answer:?} from {} records", survivors.len()),
    }
    let mut reversed: Vec<&[u8]> = txts.clone();
    reversed.reverse();
    reversed.push(b"v=spf1 -all");
    assert_eq!(record::parse(&reversed), answer, "neither order nor other records count");
}

fn is_survivor(txt: &[u8]) -> bool {
    let Some(rest) = txt.strip_prefix(b"v=STSv1") else { return false };
    rest.iter().find(|b| !matches!(b, b' ' | b'\t')) == Some(&b';')
}

//! The TXT records at `_smtp._tls`, one a line.

use stsrelay::tlsrpt::record::{self, RUA_MAX, RecordError, Rua};

use super::address::{check_mailbox, kept};

/// Records at a name at most, as one reply holds them.
const RECORDS_MAX: usize = 64;

pub fn run(data: &[u8]) {
    let txts: Vec<&[u8]> = data.split(|&b| b == b'\n').take(RECORDS_MAX).collect();
    let answer = record::parse(&txts);
    let mut reversed = txts.clone();
    reversed.reverse();
    reversed.push(b"v=STSv1; id=1");
    assert_eq!(record::parse(&reversed), answer, "neither order nor other records count");
    match answer {
        Err(RecordError::Several) => assert!(txts.len() > 1),
        Err(RecordError::Absent | RecordError::Malformed(_)) => {}
        Ok(found) => {
            assert!((1..=RUA_MAX).contains(&found.rua.len()));
            found.rua.iter().for_each(check_target);
        }
    }
}

fn check_target(target: &Rua) {
    // A line of a log, a JSON string, a header field: nothing in it can end one.
    let text = target.to_string();
    assert!(!text.bytes().any(|b| b.is_ascii_control() || b == b' '), "{text:?}");
    assert_eq!(text.parse::<Rua>().as_ref(), Ok(target), "{text}");
    match target {
        Rua::Mailto(mailbox) => {
            check_mailbox(mailbox);
            assert_eq!(kept(mailbox), *mailbox);
        }
        Rua::Https(uri) => {
            assert!(uri.is_ascii() && uri.get(..8).is_some_and(|s| s.eq_ignore_ascii_case("https://")));
        }
    }
}

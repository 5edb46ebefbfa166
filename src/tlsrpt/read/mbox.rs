//! The messages of an mbox file, one at a time, however long the file is.
//!
//! A message begins at the start, or at a line `From ` with a time of day after an empty line: not
//! every writer quotes such lines in texts. Quoted `>From ` lines stay
//! as they are: nothing of a report can begin so. Called by `unpack` and `cli::report::read`.

use std::io::{self, BufRead, Read as _};

/// Octets of a line looked at; a longer one is taken in pieces.
const LINE_BYTES_MAX: u64 = 1 << 16;

/// Whether octets are the start of an mbox file.
pub fn looks_like_mbox(start: &[u8]) -> bool {
    start.starts_with(b"From ")
}

/// Calls `each` with every message of at most `bytes_max` octets; `None` stands for a larger one.
///
/// # Errors
/// What reading says.
pub fn messages(
    reader: &mut dyn BufRead,
    bytes_max: usize,
    mut each: impl FnMut(Option<&[u8]>),
) -> io::Result<()> {
    let (mut message, mut line) = (Vec::new(), Vec::new());
    let (mut begun, mut after_empty, mut too_large) = (false, true, false);
    // A piece of a long line is not the start of a line.
    let mut within_line = false;
    loop {
        line.clear();
        if reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if !within_line && after_empty && line.starts_with(b"From ") && (!begun || has_time(&line)) {
            if begun {
                each((!too_large).then_some(&message[..]));
            }
            (begun, too_large) = (true, false);
            message.clear();
        } else if message.len() + line.len() > bytes_max {
            too_large = true;
            message.clear();
        } else if !too_large {
            message.extend_from_slice(&line);
        }
        after_empty = !within_line && matches!(&line[..], b"\n" | b"\r\n");
        within_line = line.last() != Some(&b'\n');
    }
    if begun {
        each((!too_large).then_some(&message[..]));
    }
    Ok(())
}

/// Whether there is a time of day such as `05:11` in the line.
fn has_time(line: &[u8]) -> bool {
    line.windows(5).any(|window| {
        let digit = |at: usize| window[at].is_ascii_digit();
        digit(0) && digit(1) && window[2] == b':' && digit(3) && digit(4)
    })
}

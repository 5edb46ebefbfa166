//! Message content: unstuffed on the way in, mended, stuffed on the way out, in pieces of any size.
//!
//! First octet: the size of pieces. The rest is what follows the reply to DATA.

use stsrelay::smtp::body::{
    BareNewlines, LINE_BYTES_MAX, Normalizer, Stuffer, Unstuffer, Violation, is_canonical,
};

use super::receivers::check_one_message;

pub fn run(data: &[u8]) {
    let Some((size, wire)) = data.split_first() else { return };
    let size = usize::from(*size) + 1;
    check_unstuffing(wire, size);
    check_mending(wire, size);
    check_normalising(wire, size);
    // A NUL is never taken in, so none goes out.
    let wire: Vec<u8> = wire.iter().copied().filter(|b| *b != 0).collect();
    let wire = wire.as_slice();
    let once = stuffed(wire, size);
    check_one_message(&once);
    assert_eq!(once, stuffed(wire, usize::MAX), "pieces of {size}");
    // What a receiver that follows the RFC makes of it, sent on, is the same again.
    let (used, ended, content, violation) = unstuffed(&once, size);
    assert!(ended && used == once.len() && matches!(violation, None | Some(Violation::LineTooLong)));
    if is_canonical(wire) {
        assert_eq!(content, wire, "whole lines go through as they are");
    }
    assert_eq!(stuffed(&content, size), once);
}

fn stuffed(content: &[u8], size: usize) -> Vec<u8> {
    let mut stuffer = Stuffer::default();
    let mut out = Vec::new();
    content.chunks(size).for_each(|piece| stuffer.feed(piece, &mut out));
    stuffer.finish(&mut out);
    out
}

fn unstuffed(wire: &[u8], size: usize) -> (usize, bool, Vec<u8>, Option<Violation>) {
    let mut unstuffer = Unstuffer::default();
    let mut out = Vec::new();
    let mut used = 0;
    for piece in wire.chunks(size) {
        let (more, ended) = unstuffer.feed(piece, &mut out);
        used += more;
        assert!(more == piece.len() || ended);
        if ended {
            return (used, true, out, unstuffer.violation());
        }
    }
    (used, false, out, unstuffer.violation())
}

/// With strays normalised the end is where it is without, and what goes on is one message to everyone.
fn check_normalising(wire: &[u8], size: usize) {
    let (used, ended, content) = normalised(wire, size);
    let whole = normalised(wire, usize::MAX);
    assert_eq!((used, ended, &content), (whole.0, whole.1, &whole.2), "pieces of {size}");
    let (strict_used, strict_ended, ..) = unstuffed(wire, size);
    assert_eq!((used, ended), (strict_used, strict_ended));
    if ended && !content.contains(&0) {
        assert!(is_canonical(&content));
        check_one_message(&stuffed(&content, size));
    }
}

fn normalised(wire: &[u8], size: usize) -> (usize, bool, Vec<u8>) {
    let (mut unstuffer, mut lines) = (Unstuffer::new(BareNewlines::Normalise), Normalizer::default());
    let (mut out, mut used) = (Vec::new(), 0);
    for piece in wire.chunks(size) {
        let mut content = Vec::new();
        let (more, ended) = unstuffer.feed(piece, &mut content);
        used += more;
        lines.feed(&content, &mut out);
        if ended {
            lines.finish(&mut out);
            return (used, true, out);
        }
    }
    (used, false, out)
}

/// Against the rule of RFC 5321 §4.5.2 in its simplest form.
fn check_unstuffing(wire: &[u8], size: usize) {
    let (used, ended, content, violation) = unstuffed(wire, size);
    let whole = unstuffed(wire, usize::MAX);
    assert_eq!((used, ended, violation), (whole.0, whole.1, whole.3), "pieces of {size}");
    let mut model = Vec::new();
    let mut end = None;
    let mut at = 0;
    while at < wire.len() {
        let line_end = find(&wire[at..], b"\r\n").map_or(wire.len(), |found| at + found + 2);
        let line = &wire[at..line_end];
        if line == b".\r\n" {
            end = Some(line_end);
            break;
        }
        model.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        at = line_end;
    }
    assert_eq!((ended, used), (end.is_some(), end.unwrap_or(wire.len())));
    if ended {
        assert_eq!(content, model);
        let body = &wire[..used - 3];
        let stray = has_stray(body) || body.contains(&0);
        let long = model.split_inclusive(|b| *b == b'\n').any(|line| line.len() > LINE_BYTES_MAX + 2);
        match violation {
            None => assert!(!stray && !long),
            Some(Violation::LineTooLong) => assert!(!stray && long),
            Some(_) => assert!(stray),
        }
    }
}

fn check_mending(wire: &[u8], size: usize) {
    let mended = |size: usize| {
        let mut normalizer = Normalizer::default();
        let mut out = Vec::new();
        wire.chunks(size).for_each(|piece| normalizer.feed(piece, &mut out));
        normalizer.finish(&mut out);
        (out, normalizer.violation())
    };
    let (out, violation) = mended(size);
    assert_eq!((&out, violation), (&mended(usize::MAX).0, mended(usize::MAX).1), "pieces of {size}");
    assert!(is_canonical(&out) && out.len() <= 2 * wire.len() + 2);
    let text = |octets: &[u8]| octets.iter().copied().filter(|b| !b"\r\n".contains(b)).collect::<Vec<_>>();
    assert_eq!(text(&out), text(wire), "nothing but line ends is touched");
    assert_eq!(violation == Some(Violation::Nul), wire.contains(&0));
}

fn has_stray(content: &[u8]) -> bool {
    let mut previous = b'\n';
    let mut stray = false;
    for (at, octet) in content.iter().enumerate() {
        stray |= *octet == b'\r' && content.get(at + 1) != Some(&b'\n');
        stray |= *octet == b'\n' && (at == 0 || previous != b'\r');
        previous = *octet;
    }
    stray
}

fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets.windows(wanted.len()).position(|window| window == wanted)
}

//! Rows and properties for [`super`]: what ends content, what is refused, and that pieces of any
//! size give the same result as the whole.

use proptest::prelude::*;

use super::*;

#[test]
fn canonical_content_is_whole_crlf_lines() {
    for good in ["", "\r\n", "a\r\n", "a\r\n\r\n.\r\nb\r\n"] {
        assert!(is_canonical(good.as_bytes()), "{good:?}");
    }
    for bad in ["a", "a\r", "a\n", "a\r\nb", "a\rb\r\n", "a\nb\r\n", "a\r\r\n", "\n\r\n", "a\r\n\n"] {
        assert!(!is_canonical(bad.as_bytes()), "{bad:?}");
    }
}

/// Feeds `wire` cut at every `step` octets; content, octets used, ended, violation.
fn unstuff(wire: &[u8], step: usize) -> (Vec<u8>, usize, bool, Option<Violation>) {
    let mut unstuffer = Unstuffer::default();
    let mut out = Vec::new();
    let mut used = 0;
    for piece in wire.chunks(step.max(1)) {
        let (n, ended) = unstuffer.feed(piece, &mut out);
        used += n;
        if ended {
            return (out, used, true, unstuffer.violation());
        }
        assert_eq!(n, piece.len());
    }
    (out, used, false, unstuffer.violation())
}

fn stuff(content: &[u8], step: usize) -> Vec<u8> {
    let mut stuffer = Stuffer::default();
    let mut out = Vec::new();
    for piece in content.chunks(step.max(1)) {
        stuffer.feed(piece, &mut out);
    }
    stuffer.finish(&mut out);
    out
}

fn normalize(content: &[u8], step: usize) -> Vec<u8> {
    let mut normalizer = Normalizer::default();
    let mut out = Vec::new();
    for piece in content.chunks(step.max(1)) {
        normalizer.feed(piece, &mut out);
    }
    normalizer.finish(&mut out);
    out
}

#[test]
fn content_ends_at_crlf_dot_crlf_and_the_rest_is_left() {
    let good = |wire: &[u8], content: &[u8], rest: &[u8]| {
        for step in 1..=wire.len() {
            let (out, used, ended, violation) = unstuff(wire, step);
            assert!(ended, "{wire:?}");
            assert_eq!((out.as_slice(), &wire[used..], violation), (content, rest, None), "step {step}");
        }
    };
    good(b".\r\n", b"", b"");
    good(b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n");
    good(b"..\r\n.\r\n", b".\r\n", b"");
    good(b"..a\r\n...\r\n.\r\n", b".a\r\n..\r\n", b"");
    good(b".a\r\n.\r\n", b"a\r\n", b"");
    good(b"\r\n.\r\n", b"\r\n", b"");
    good("grüße\r\n.\r\n".as_bytes(), "grüße\r\n".as_bytes(), b"");
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_content_and_every_stray_is_noticed() {
    // What other servers have taken for the end of data.
    for (wire, violation) in [
        (&b"a\n.\n"[..], Violation::BareLf),
        (b"a\n.\r\n", Violation::BareLf),
        (b"a\r\n.\n", Violation::BareLf),
        (b"a\r.\r", Violation::BareCr),
        (b"a\r\n.\rb", Violation::BareCr),
        (b"a\n.\r", Violation::BareLf),
        (b"a\r.\r\n", Violation::BareCr),
        (b"a\r.\n", Violation::BareCr),
        (b"a\r\n\0.\r\n", Violation::Nul),
        (b"a\r\n.\0\r\n", Violation::Nul),
        (b"a\r\r\n.\r\r\n", Violation::BareCr),
        (b"a\r\n.\r\r\n", Violation::BareCr),
        (b"a\n\r\n.\n", Violation::BareLf),
    ] {
        let smuggled = [wire, b"MAIL FROM:<x@y.z>\r\n"].concat();
        for step in 1..=smuggled.len() {
            let (_, used, ended, seen) = unstuff(&smuggled, step);
            assert!(!ended && used == smuggled.len(), "{wire:?}");
            assert_eq!(seen, Some(violation), "{wire:?} step {step}");
        }
        let closed = [&smuggled[..], b"\r\n.\r\n"].concat();
        assert!(unstuff(&closed, 3).2);
    }
}

#[test]
fn the_line_limit_is_998_octets_and_a_stray_outranks_it() {
    let line = |n: usize| [&b"x".repeat(n)[..], b"\r\n.\r\n"].concat();
    assert_eq!(unstuff(&line(998), 64).3, None);
    assert_eq!(unstuff(&line(999), 64).3, Some(Violation::LineTooLong));
    // Before its end too, in whatever pieces.
    for size in [7, 1000] {
        let mut unstuffer = Unstuffer::default();
        for piece in line(999)[..1000].chunks(size) {
            unstuffer.feed(piece, &mut Vec::new());
        }
        assert_eq!(unstuffer.violation(), Some(Violation::LineTooLong));
    }
    let both = [&b"x".repeat(2000)[..], b"\n\r\n.\r\n"].concat();
    assert_eq!(unstuff(&both, 64).3, Some(Violation::BareLf));
    let split = [&b"x".repeat(900)[..], b"\r\n", &b"x".repeat(900)[..], b"\r\n.\r\n"].concat();
    assert_eq!(unstuff(&split, 7).3, None);
}

#[test]
fn stuffing_ends_lines_and_never_lets_a_stray_out() {
    let good = |content: &[u8], wire: &[u8]| {
        for step in 1..=content.len().max(1) {
            assert_eq!(stuff(content, step), wire, "step {step}");
        }
    };
    good(b"", b".\r\n");
    good(b"a", b"a\r\n.\r\n");
    good(b"a\r\n", b"a\r\n.\r\n");
    good(b".\r\n..\r\n", b"..\r\n...\r\n.\r\n");
    good(b"a\n.b\rc\r\r\nd", b"a\r\n..b\r\nc\r\n\r\nd\r\n.\r\n");
    good(b"a\r", b"a\r\n.\r\n");
}

#[test]
fn bdat_content_is_mended_to_crlf_lines_and_nothing_is_unstuffed() {
    assert_eq!(normalize(b"..a\nb\rc\r\n.\r\nd", 1), b"..a\r\nb\r\nc\r\n.\r\nd\r\n");
    let mut normalizer = Normalizer::default();
    normalizer.feed(b"a\0b", &mut Vec::new());
    assert_eq!(normalizer.violation(), Some(Violation::Nul));
    let mut normalizer = Normalizer::default();
    normalizer.feed(&[b'x'; 600], &mut Vec::new());
    normalizer.feed(&[b'x'; 600], &mut Vec::new());
    assert_eq!(normalizer.violation(), Some(Violation::LineTooLong));
}

/// The slow and obvious way.
fn oracle(wire: &[u8]) -> (Vec<u8>, usize, bool, bool) {
    let framed = [b"\r\n", wire].concat();
    let end = memchr::memmem::find(&framed, b"\r\n.\r\n");
    let (lines, used) = match end {
        Some(end) => (&framed[..end + 2], end + 3),
        None => (&framed[..], wire.len()),
    };
    let mut content = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        if rest.starts_with(b"\r\n.") && end.is_some() | (rest.len() > 3) {
            content.extend_from_slice(b"\r\n");
            rest = &rest[3..];
        } else {
            content.push(rest[0]);
            rest = &rest[1..];
        }
    }
    let stray = content.iter().enumerate().any(|(i, &b)| match b {
        0 => true,
        b'\n' => i == 0 || content[i - 1] != b'\r',
        b'\r' => content.get(i + 1) != Some(&b'\n'),
        _ => false,
    });
    (content.split_off(2), used, end.is_some(), stray)
}

fn nasty(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![
            3 => Just(b'\r'), 3 => Just(b'\n'), 3 => Just(b'.'), 2 => Just(b'a'), 1 => Just(0u8)
        ],
        0..max,
    )
}

proptest! {
    #[test]
    fn unstuffing_agrees_with_the_obvious_way(wire in nasty(40), step in 1usize..12) {
        let closed = [&wire[..], b"x\r\n.\r\n"].concat();
        let (out, used, ended, violation) = unstuff(&closed, step);
        let (want, want_used, want_ended, stray) = oracle(&closed);
        prop_assert!(ended && want_ended);
        prop_assert_eq!(used, want_used);
        prop_assert_eq!(out, want);
        prop_assert_eq!(violation.is_some(), stray);
    }

    #[test]
    fn clean_content_survives_the_round_trip(
        lines in prop::collection::vec("[.a-z ]{0,6}", 0..12), a in 1usize..9, b in 1usize..9
    ) {
        let content: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
        let wire = stuff(&content, a);
        let (out, used, ended, violation) = unstuff(&wire, b);
        prop_assert!(ended && used == wire.len() && violation.is_none());
        prop_assert_eq!(&out, &content);
        prop_assert_eq!(normalize(&content, a), content);
    }

    #[test]
    fn whatever_is_stuffed_arrives_whole_and_clean(content in nasty(40), a in 1usize..9) {
        let wire = stuff(&content, a);
        let (_, used, ended, violation) = unstuff(&wire, 5);
        prop_assert!(ended && used == wire.len());
        prop_assert!(!matches!(violation, Some(Violation::BareCr | Violation::BareLf)));
    }
}

/// What a session that normalises stores of `wire`, and whether and where it ended.
fn normalised(wire: &[u8], step: usize) -> (Vec<u8>, usize, bool, Option<Violation>) {
    let (mut unstuffer, mut lines) = (Unstuffer::new(BareNewlines::Normalise), Normalizer::default());
    let (mut out, mut used) = (Vec::new(), 0);
    for piece in wire.chunks(step.max(1)) {
        let mut content = Vec::new();
        let (n, ended) = unstuffer.feed(piece, &mut content);
        used += n;
        lines.feed(&content, &mut out);
        if ended {
            lines.finish(&mut out);
            return (out, used, true, lines.violation());
        }
    }
    (out, used, false, lines.violation())
}

#[test]
fn normalising_makes_whole_lines_and_a_bare_newline_never_ends_content() {
    for (wire, content) in [
        // What other servers have taken for the end of data is a line with a dot.
        (&b"a\n.\nb"[..], &b"a\r\n.\r\nb\r\n"[..]),
        (b"a\n.\r\nb", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\nb", b"a\r\n.\r\nb\r\n"),
        (b"a\r.\rb", b"a\r\n.\r\nb\r\n"),
        (b"a\r.\r\nb", b"a\r\n.\r\nb\r\n"),
        (b"a\r.\nb", b"a\r\n.\r\nb\r\n"),
        (b"a\n.\rb", b"a\r\n\r\nb\r\n"),
        (b"a\r\n.\rb", b"a\r\n\r\nb\r\n"),
        (b"a\r\r\n.\r\r\nb", b"a\r\n\r\n\r\n\r\nb\r\n"),
        (b"\n.\nb", b"\r\n.\r\nb\r\n"),
        // Stuffing comes off behind an LF as behind CRLF, and nowhere else.
        (b"a\n..\nb", b"a\r\n.\r\nb\r\n"),
        (b"a\n..b\n.c", b"a\r\n.b\r\nc\r\n"),
        (b"a\r..b", b"a\r\n..b\r\n"),
        (b"a\nb\rc\r\nd", b"a\r\nb\r\nc\r\nd\r\n"),
        (b"a\n\n\r\r", b"a\r\n\r\n\r\n\r\n\r\n"),
    ] {
        let closed = [wire, b"\r\n.\r\nQUIT\r\n"].concat();
        for step in 1..=closed.len() {
            let (out, used, ended, violation) = normalised(&closed, step);
            let shown = || wire.escape_ascii().to_string();
            assert!(ended && violation.is_none() && &closed[used..] == b"QUIT\r\n", "{} {step}", shown());
            assert_eq!(out.escape_ascii().to_string(), content.escape_ascii().to_string(), "{}", shown());
        }
    }
    assert_eq!(normalised(b"a\0\n\r\n.\r\n", 4).3, Some(Violation::Nul));
    let long = [&b"x".repeat(998)[..], b"\n", &b"x".repeat(998)[..], b"\r\n.\r\n"].concat();
    assert_eq!(normalised(&long, 100).3, None, "lines count as they will be");
    let longer = [&b"x".repeat(999)[..], b"\n\r\n.\r\n"].concat();
    assert_eq!(normalised(&longer, 100).3, Some(Violation::LineTooLong));
}

/// Where any of the world's receivers might see the end of a message.
#[path = "../../../tests/fuzz/src/receivers.rs"]
mod receivers;

proptest! {
    #[test]
    fn whatever_comes_in_normalised_goes_out_as_one_message(wire in nasty(60), a in 1usize..12, b in 1usize..9) {
        let closed = [&wire[..], b"x\r\n.\r\n"].concat();
        let (content, used, ended, violation) = normalised(&closed, a);
        // The end is where the strict reader sees it, whatever stands before.
        let (_, strict_used, strict_ended, _) = unstuff(&closed, b);
        prop_assert_eq!((used, ended), (strict_used, strict_ended));
        prop_assert_eq!(violation.is_some(), closed[..used].contains(&0));
        prop_assert!(is_canonical(&content));
        if violation.is_none() {
            receivers::check_one_message(&stuff(&content, b));
        }
    }
}

//! Servers that read the end of a message in other ways than RFC 5321 says: an oracle for smuggling.

/// What some server takes for the end of a line.
const LINE_ENDS: [&[u8]; 3] = [b"\r\n", b"\n", b"\r"];

/// Where any receiver might see the end of the message in what follows DATA: after a line end of any
/// kind, a dot, and a line end of any kind. Some ignore NULs, so there must be none.
pub fn ends_seen(wire: &[u8]) -> Vec<usize> {
    assert!(!wire.contains(&0), "a NUL goes to the wire");
    (0..wire.len())
        .filter(|&at| wire[at] == b'.')
        .filter(|&at| at == 0 || LINE_ENDS.iter().any(|end| wire[..at].ends_with(end)))
        .filter(|&at| LINE_ENDS.iter().any(|end| wire[at + 1..].starts_with(end)))
        .collect()
}

/// Asserts that what follows DATA is one message to every receiver.
pub fn check_one_message(wire: &[u8]) {
    assert!(wire.ends_with(b".\r\n"));
    assert_eq!(ends_seen(wire), [wire.len() - 3], "{}", wire.escape_ascii());
    check_lines(wire);
}

/// Asserts that CR and LF come in pairs only.
pub fn check_lines(content: &[u8]) {
    for (at, octet) in content.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(content.get(at + 1), Some(&b'\n'), "CR alone at {at}"),
            b'\n' => assert!(at > 0 && content[at - 1] == b'\r', "LF alone at {at}"),
            _ => {}
        }
    }
}

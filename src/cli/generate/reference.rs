//! stsrelay.toml(5): the commented configuration as a manual page.
//!
//! Pure. Goes by the form of `config/stsrelay.toml`: comments before the keys they are about, tables that are set
//! out with blanks, keys without a default as comments of the form `# key = value`.

use clap_mangen::roff::{Roff, bold, roman};

/// The reference, as operators read it.
const REFERENCE: &str = include_str!("../../../config/stsrelay.toml");

/// The page.
pub(super) fn page() -> String {
    let mut roff = Roff::new();
    let source = concat!("stsrelay ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["stsrelay.toml", "5", "", source, "stsrelay"]);
    roff.control("SH", ["NAME"]).text([roman("stsrelay.toml - configuration of the mail relay stsrelay")]);
    roff.control("SH", ["DESCRIPTION"]);
    render(REFERENCE, &mut roff);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("stsrelay"), roman("(8), "), bold("stsrelay-config"), roman("(8)")]);
    roff.render()
}

/// Some keys, and the comment above them.
#[derive(Default)]
struct Entry<'a> {
    comment: Vec<&'a str>,
    keys: Vec<&'a str>,
}

fn render(text: &str, roff: &mut Roff) {
    let mut entry = Entry::default();
    for line in text.lines() {
        match line.strip_prefix('#') {
            // A comment after keys begins what is next; one like a key is a key without a default.
            Some(comment) if !is_key(comment.trim_start()) => {
                if !entry.keys.is_empty() {
                    std::mem::take(&mut entry).render(roff);
                }
                entry.comment.push(comment.strip_prefix(' ').unwrap_or(comment));
            }
            None if line.is_empty() => std::mem::take(&mut entry).render(roff),
            None if line.starts_with('[') => {
                let above = std::mem::take(&mut entry);
                let (above, about) = if above.keys.is_empty() { (None, above) } else { (Some(above), entry) };
                if let Some(above) = above {
                    above.render(roff);
                }
                roff.control("SH", [line]);
                about.render(roff);
                entry = Entry::default();
            }
            _ => entry.keys.push(line),
        }
    }
    entry.render(roff);
}

/// Whether this, behind a `#`, is an example: `key = value` or the head of a table.
fn is_key(comment: &str) -> bool {
    let name = comment.split(" = ").next().unwrap_or_default();
    let named = name.len() < comment.len() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    named || comment.starts_with("[[")
}

impl Entry<'_> {
    /// In the order of the file: which of the keys a comment is about is said by its words alone.
    fn render(self, roff: &mut Roff) {
        if !self.comment.is_empty() {
            roff.control("PP", []);
        }
        let mut set_out = false;
        for line in self.comment {
            // What was set out with blanks stays so.
            let blanks = line.starts_with(' ') || line.contains("   ");
            if blanks != set_out {
                roff.control(if blanks { "nf" } else { "fi" }, []);
                set_out = blanks;
            }
            roff.text([roman(line)]);
        }
        if set_out {
            roff.control("fi", []);
        }
        if !self.keys.is_empty() {
            roff.control("RS", []).control("nf", []);
            for key in self.keys {
                roff.text([bold(key)]);
            }
            roff.control("fi", []).control("RE", []);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_text_and_keys_stay_as_they_are() {
        let mut roff = Roff::new();
        let text = "# All of it.\n\n[a]\n# What b\n# is.\nb = \"x-y\"\n# c = 1\n# Of d:\n#   one    1\nd = 2\n\n# Of e.\n[[e]]\nf = []\n";
        render(text, &mut roff);
        let expected = ".PP\nAll of it.\n.SH [a]\n.PP\nWhat b\nis.\n\
                        .RS\n.nf\n\\fBb = \"x\\-y\"\\fR\n\\fB# c = 1\\fR\n.fi\n.RE\n\
                        .PP\nOf d:\n.nf\n  one    1\n.fi\n.RS\n.nf\n\\fBd = 2\\fR\n.fi\n.RE\n\
                        .SH [[e]]\n.PP\nOf e.\n.RS\n.nf\n\\fBf = []\\fR\n.fi\n.RE\n";
        assert_eq!(roff.to_roff(), expected);
    }

    #[test]
    fn every_key_is_in_the_page() {
        let page = page();
        for key in crate::config::load::known_keys() {
            let name = key.rsplit('.').next().expect("a last part");
            assert!(page.contains(&format!("{name} = ")) || page.contains(&format!("{name}]")), "{key}");
        }
    }
}

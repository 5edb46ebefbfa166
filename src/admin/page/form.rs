//! Names and values of a form or a query, and links that carry them. Pure.

use form_urlencoded::Serializer;

/// Fields taken at most: a page of selected items and their form.
const FIELDS_MAX: usize = 400;
/// Characters of a value at most; the rest is cut.
const VALUE_CHARS_MAX: usize = 1000;

/// Fields in their order; names may come twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `a=b&c=d`. What is no such thing gives no fields.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let field = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            let cut = |text: &str| text.chars().take(VALUE_CHARS_MAX).collect::<String>();
            (cut(&name), cut(value.trim()))
        };
        Self(form_urlencoded::parse(bytes).take(FIELDS_MAX).map(field).collect())
    }

    /// The first value of this name; empty when there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(have, _)| have == name).map_or("", |(_, value)| value)
    }

    /// The first value of this name that is not empty.
    pub(super) fn some(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    /// Read as what it should be: `Ok(None)` when it is not there.
    ///
    /// # Errors
    /// The text that could not be read.
    pub(super) fn read<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        self.some(name).map(|text| text.parse().map_err(|_| text.to_owned())).transpose()
    }

    /// All values of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Those of these names that are there, in order.
    pub(super) fn only<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let wanted = |(name, value): &&(String, String)| names.contains(&name.as_str()) && !value.is_empty();
        self.0.iter().filter(wanted).map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A path with these fields as its query; without those that are empty.
pub(super) fn link<'a>(path: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in fields {
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Where to go on after a form was done: a path here, and nothing else.
pub(super) fn path_here(wanted: &str) -> &str {
    let sane = wanted.starts_with('/')
        && !wanted.starts_with("//")
        && wanted.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if sane { wanted } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order_and_bounded() {
        let fields = Fields::parse(b"item=1-00000001.0&item=2&q=%3Cb%3E+x&empty=&back=%2Fqueue");
        assert_eq!(fields.all("item").collect::<Vec<_>>(), ["1-00000001.0", "2"]);
        assert_eq!((fields.text("q"), fields.some("empty"), fields.text("none")), ("<b> x", None, ""));
        assert_eq!(fields.read::<u8>("item"), Err("1-00000001.0".to_owned()));
        assert_eq!(fields.only(&["q", "back"]).collect::<Vec<_>>(), [("q", "<b> x"), ("back", "/queue")]);
        let many = Fields::parse("a=b&".repeat(10_000).as_bytes());
        assert_eq!(many.0.len(), FIELDS_MAX);
        let long = Fields::parse(format!("a={}", "x".repeat(100_000)).as_bytes());
        assert_eq!(long.text("a").len(), VALUE_CHARS_MAX);
        assert_eq!(Fields::parse(b"\xff%ff&&=").text("none"), "");
    }

    #[test]
    fn links_carry_what_is_there_and_nothing_breaks_out() {
        assert_eq!(link("/queue", [("a", ""), ("b", "x&y=\"<z> é")]), "/queue?b=x%26y%3D%22%3Cz%3E+%C3%A9");
        assert_eq!(link("/queue", [("a", "")]), "/queue");
    }

    #[test]
    fn a_form_leads_nowhere_else() {
        for (wanted, path) in [
            ("/queue?state=held", "/queue?state=held"),
            ("", "/"),
            ("//evil.example/", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example/", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
            ("queue", "/"),
        ] {
            assert_eq!(path_here(wanted), path, "{wanted:?}");
        }
    }
}

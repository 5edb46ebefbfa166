//! Plots as SVG made here: columns over time, and shares of a whole. Pure.
//!
//! What a picture shows is told in words beside it; the columns' figures are a table of their own. Colours come
//! from the style sheet by class, since the content security policy allows no style here.

use jiff::Timestamp;
use maud::{Markup, html};

use super::text::{count, share};

/// Width of a column in the picture's own units, gap included.
const COLUMN: usize = 10;
/// Its height.
const HEIGHT: u64 = 100;

/// Columns over time.
pub(super) struct Columns<'a> {
    /// What is counted.
    pub title: &'a str,
    /// Of what, for so many.
    pub unit: &'a str,
    /// Its class in the style sheet.
    pub tone: &'a str,
    /// When each begins, and so many; `None` when nobody looked.
    pub columns: Vec<(Timestamp, Option<u64>)>,
    /// How long a column is, in words.
    pub width: &'a str,
    /// How instants are told at this range.
    pub clock: &'a str,
    /// The same, shorter, below the columns.
    pub axis: &'a str,
}

impl Columns<'_> {
    fn total(&self) -> u64 {
        self.columns.iter().filter_map(|(_, count)| *count).sum()
    }

    /// The highest column.
    fn most(&self) -> Option<(Timestamp, u64)> {
        let known = self.columns.iter().filter_map(|(from, count)| Some((*from, (*count)?)));
        known.filter(|(_, count)| *count > 0).max_by_key(|(_, count)| *count)
    }

    fn told(&self, from: Timestamp) -> String {
        from.strftime(self.clock).to_string()
    }

    /// In words, for whoever does not see it.
    fn words(&self) -> String {
        match self.most() {
            None => format!("{}: none", self.title),
            Some((from, most)) => format!(
                "{}: {} in all ({}), most in {} from {}: {}",
                self.title,
                count(self.total()),
                self.unit,
                self.width,
                self.told(from),
                count(most)
            ),
        }
    }

    /// The picture with its title, total and scale.
    pub(super) fn show(&self) -> Markup {
        let most = self.most().map_or(0, |(_, most)| most);
        let box_width = self.columns.len() * COLUMN;
        let ends = [self.columns.first(), self.columns.get(self.columns.len() / 2), self.columns.last()];
        html! {
            figure class={ "plot " (self.tone) } {
                figcaption {
                    span.what { (self.title) }
                    strong { (count(self.total())) }
                    span.quiet { (self.unit) }
                }
                div.scale aria-hidden="true" {
                    @if most > 0 { (count(most)) " in " (self.width) } @else { "none" }
                }
                svg viewBox={ "0 0 " (box_width) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label=(self.words()) {
                    @for (at, (from, counted)) in self.columns.iter().enumerate() {
                        (self.column(at, *from, *counted, most))
                    }
                }
                div.axis aria-hidden="true" {
                    @for (from, _) in ends.into_iter().flatten() { span { (from.strftime(self.axis)) } }
                }
            }
        }
    }

    fn column(&self, at: usize, from: Timestamp, counted: Option<u64>, most: u64) -> Markup {
        let x = at * COLUMN;
        html! {
            @match counted {
                None => rect.unknown x=(x) y="0" width=(COLUMN) height=(HEIGHT) {
                    title { (self.told(from)) ": not known" }
                },
                Some(0) => {},
                Some(some) => {
                    // What is there can be seen, however little.
                    @let height = (u128::from(some) * u128::from(HEIGHT) / u128::from(most.max(1))).max(3);
                    rect.column x=(x + 1) y=(u128::from(HEIGHT).saturating_sub(height))
                        width=(COLUMN - 2) height=(height) {
                        title { (self.told(from)) ": " (count(some)) }
                    }
                }
            }
        }
    }
}

/// One part of a whole.
pub(super) struct Part {
    /// Its class in the style sheet.
    pub tone: &'static str,
    /// What it is.
    pub name: &'static str,
    /// What that means.
    pub means: &'static str,
    /// So much of it.
    pub count: u64,
}

/// Parts of a whole: a bar and a table.
pub(super) fn parts(caption: &str, unit: &str, parts: &[Part]) -> Markup {
    let whole: u64 = parts.iter().map(|part| part.count).sum();
    let mut from = 0.0;
    let mut pieces = Vec::new();
    for part in parts.iter().filter(|part| part.count > 0) {
        let width = part.count as f64 * 1000.0 / whole.max(1) as f64;
        pieces.push((part, from, width));
        from += width;
    }
    html! {
        svg.share viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            @if whole == 0 { rect.unknown x="0" y="0" width="1000" height="10" {} }
            @for (part, from, width) in &pieces {
                rect class={ "part " (part.tone) } x=(format!("{from:.2}")) y="0" width=(format!("{width:.2}"))
                    height="10" {}
            }
        }
        table.plain {
            caption.aside { (caption) }
            thead { tr { th scope="col" { "Protection" } th.number scope="col" { (unit) } th.number scope="col" { "Share" } } }
            tbody {
                @for part in parts {
                    tr {
                        th scope="row" {
                            svg.key viewBox="0 0 10 10" aria-hidden="true" focusable="false" {
                                rect class={ "part " (part.tone) } width="10" height="10" rx="2" {}
                            }
                            (part.name) span.means { (part.means) }
                        }
                        td.number { (count(part.count)) }
                        td.number { (share(part.count, whole)) }
                    }
                }
            }
        }
    }
}

/// A bar behind a number: so much of the most there is.
pub(super) fn bar(part: u64, most: u64) -> Markup {
    let width = if most == 0 { 0.0 } else { part as f64 * 100.0 / most as f64 };
    html! {
        svg.bar viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect.ground x="0" y="0" width="100" height="10" rx="1" {}
            @if part > 0 { rect.column x="0" y="0" width=(format!("{:.1}", width.max(1.0))) height="10" rx="1" {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(counts: &[Option<u64>]) -> Columns<'static> {
        let from = |n: i64| Timestamp::from_second(1_800_000_000 + n * 60).unwrap();
        Columns {
            title: "Delivered",
            unit: "recipients",
            tone: "out",
            columns: counts.iter().enumerate().map(|(n, count)| (from(n as i64), *count)).collect(),
            width: "a minute",
            clock: "%H:%M",
            axis: "%H:%M",
        }
    }

    #[test]
    fn a_plot_tells_in_words_what_it_shows() {
        let shown =
            plot(&[None, Some(0), Some(1_000_000), Some(1), Some(u64::MAX / 1_000_000)]).show().into_string();
        assert!(shown.contains("most in a minute from 08:04: 18,446,744,073,709"), "{shown}");
        assert!(shown.contains("class=\"unknown\"") && shown.contains("08:00: not known"), "{shown}");
        // The least there is can be seen.
        assert_eq!(shown.matches("height=\"3\"").count(), 2, "{shown}");
        assert_eq!(shown.matches("<rect").count(), 4, "{shown}");
        assert!(!shown.contains("style="), "{shown}");
    }

    #[test]
    fn a_plot_of_nothing_is_one_too() {
        for counts in [&[][..], &[None], &[Some(0)]] {
            let shown = plot(counts).show().into_string();
            assert!(shown.contains("aria-label=\"Delivered: none\""), "{shown}");
        }
        let none = [Part { tone: "dane", name: "DANE", means: "", count: 0 }];
        assert!(parts("x", "Recipients", &none).into_string().contains('–'));
    }

    #[test]
    fn parts_fill_the_bar() {
        let part = |count| Part { tone: "dane", name: "DANE", means: "", count };
        let shown = parts("x", "Recipients", &[part(1), part(3), part(0)]).into_string();
        assert!(shown.contains("x=\"250.00\" y=\"0\" width=\"750.00\""), "{shown}");
        assert!(shown.contains("25.0 %") && shown.contains("0.0 %"), "{shown}");
    }
}

//! The table: a row as it is measured, and the medians at the end.

use std::collections::BTreeMap;

/// What a round tells.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub name: String,
    /// Messages per second.
    pub rate: f64,
    /// From end of content to its 250: p50, p99, p999, milliseconds.
    pub latencies: [f64; 3],
    /// Seconds per 1000 messages.
    pub cpu: f64,
    pub peak_mb: f64,
    /// Before the first message.
    pub idle_mb: Option<f64>,
    /// TLS handshakes per 1000 messages.
    pub handshakes: Option<f64>,
    /// DNS questions per 1000 messages.
    pub questions: Option<f64>,
    pub lost: u64,
    pub doubled: u64,
}

pub fn head() {
    println!(
        "{:<13}{:>8}{:>8}{:>8}{:>8}{:>9}{:>8}{:>7}{:>7}{:>7}  lost, doubled",
        "", "msgs/s", "p50 ms", "p99", "p999", "cpu s/k", "peak MB", "idle", "tls/k", "dns/k"
    );
}

impl Row {
    pub fn print(&self) {
        let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let [p50, p99, p999] = self.latencies;
        println!(
            "{:<13}{:>8.0}{p50:>8.2}{p99:>8.2}{p999:>8.2}{:>9.3}{:>8.1}{:>7}{:>7}{:>7}  {}, {}",
            self.name,
            self.rate,
            self.cpu,
            self.peak_mb,
            known(self.idle_mb),
            known(self.handshakes),
            known(self.questions),
            self.lost,
            self.doubled,
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn median_row(rows: &[Row]) -> Row {
    let of = |value: &dyn Fn(&Row) -> f64| median(rows.iter().map(value).collect());
    let of_known = |value: &dyn Fn(&Row) -> Option<f64>| {
        let values: Vec<f64> = rows.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| median(values))
    };
    Row {
        name: rows.first().map(|row| row.name.clone()).unwrap_or_default(),
        rate: of(&|row| row.rate),
        latencies: [0, 1, 2].map(|at| of(&|row: &Row| row.latencies[at])),
        cpu: of(&|row| row.cpu),
        peak_mb: of(&|row| row.peak_mb),
        idle_mb: of_known(&|row| row.idle_mb),
        handshakes: of_known(&|row| row.handshakes),
        questions: of_known(&|row| row.questions),
        // Not one of them may hide behind a median.
        lost: rows.iter().map(|row| row.lost).sum(),
        doubled: rows.iter().map(|row| row.doubled).sum(),
    }
}

/// The medians of several repetitions, and what they say of each other.
pub fn summary(rows: &[Row]) {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    let medians: BTreeMap<&str, Row> = names
        .iter()
        .map(|name| {
            let of: Vec<Row> = rows.iter().filter(|row| row.name == **name).cloned().collect();
            (*name, median_row(&of))
        })
        .collect();
    println!("\nmedians");
    head();
    for name in &names {
        medians[name].print();
    }
    println!();
    let ratio = |what: &str, over: &str, under: &str, value: &dyn Fn(&Row) -> f64| {
        if let (Some(over), Some(under)) = (medians.get(over), medians.get(under)) {
            println!("{what:<52}{:>7.2}", value(over) / value(under));
        }
    };
    ratio("relay: messages per second, of the floor's", "relay", "floor", &|row| row.rate);
    ratio("relay: messages per second, of Postfix's", "relay", "postfix", &|row| row.rate);
    ratio("relay: messages per CPU second, of Postfix's", "relay", "postfix", &|row| 1.0 / row.cpu);
    ratio("accept: messages per second, of the floor's", "accept", "floor-accept", &|row| row.rate);
    ratio("accept: p99 of the 250, of the floor's", "accept", "floor-accept", &|row| row.latencies[1]);
    ratio("accept: messages per second, of the pushing floor's", "accept", "floor", &|row| row.rate);
    ratio("accept: p99 of the 250, of the pushing floor's", "accept", "floor", &|row| row.latencies[1]);
    ratio("stall: rate of the others, of relay's", "stall", "relay", &|row| {
        if row.name == "stall" { row.rate } else { row.rate * 49.0 / 50.0 }
    });
    ratio("drain: messages per second, of relay's", "drain", "relay", &|row| row.rate);
}

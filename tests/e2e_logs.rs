//! The fields of log lines that `config/operating.md` promises, as JSON.

mod support;

use std::collections::BTreeSet;

use serde_json::Value;

use support::client::message;
use support::world::World;

/// The words in backquotes of a cell.
fn quoted(cell: &str) -> Names {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

type Names = BTreeSet<String>;

/// A line of the table.
#[derive(Debug)]
struct Row {
    message: String,
    always: Names,
    perhaps: Names,
    span: Names,
}

fn promised() -> Vec<Row> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("config/operating.md")).expect("readable");
    let (_, table) = text.split_once("| line | fields | in `span` |\n").expect("the table");
    let mut rows: Vec<Row> = Vec::new();
    for row in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (always, perhaps) = cells[2].split_once("; where there is one ").unwrap_or((cells[2], ""));
        let (mut always, mut span) = (quoted(always), quoted(cells[3]));
        if cells[2].starts_with("the same") {
            let delivered = &rows.iter().find(|row| row.message == "delivered").expect("above").always;
            always.extend(delivered.iter().cloned());
        }
        if cells[3].starts_with("the same") {
            span = rows.last().expect("above").span.clone();
        }
        let message = cells[1].trim_matches('`').to_owned();
        rows.push(Row { message, always, perhaps: quoted(perhaps), span });
    }
    rows
}

#[tokio::test]
async fn log_lines_have_the_fields_that_operators_are_told_of() {
    let world = World::start(4, &[], "[log]\nformat = \"json\"\n").await;
    for (host, domain) in ["one.test", "later.test", "gone.test", "home.test"].iter().enumerate() {
        world.good_domain(domain, host);
    }
    world.farm.hosts[1].adjust(|mx| mx.dot = "451 4.3.0 later".into());
    world.farm.hosts[2].adjust(|mx| mx.replies.push(("RCPT".into(), "550 5.1.1 nobody".into())));
    world.submit("a@home.test", &["b@one.test"], &message("one")).await;
    let later = world.submit("a@home.test", &["b@later.test"], &message("later")).await;
    world.submit("a@home.test", &["b@gone.test"], &message("gone")).await;
    world.arrivals(0, 1).await;
    world.drained_but(&later).await;

    let log = world.daemon.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let rows = promised();
    assert_eq!(rows.len(), 4, "{rows:?}");
    let names = |value: &Value| -> Names {
        value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let common: Names =
        ["timestamp", "level", "target", "message", "span", "spans"].map(str::to_owned).into();
    for Row { message, always, perhaps, span } in rows {
        let line = lines.iter().find(|line| line["message"] == *message);
        let line = line.unwrap_or_else(|| panic!("{message}:\n{log}"));
        let found: Names = names(line).difference(&common).cloned().collect();
        assert!(found.is_superset(&always), "{message}: {always:?} are promised: {line}");
        let rest: Names = found.difference(&always).cloned().collect();
        assert!(rest.is_subset(&perhaps), "{message}: {rest:?} are not documented: {line}");
        let mut spanned = names(&line["span"]);
        spanned.remove("name");
        assert_eq!(spanned, span, "{message}: {line}");
    }
}

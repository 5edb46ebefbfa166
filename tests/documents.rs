//! Holds documents to the program: log lines and metrics they name exist.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, out: &mut String) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push_str(&fs::read_to_string(&path).expect("readable"));
        }
    }
}

/// What stands in backquotes in the first column of the table below this heading.
fn first_column(text: &str, heading: &str) -> Vec<String> {
    let section = text.split(heading).nth(1).expect("the heading is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_log_line_that_operators_are_told_about_exists() {
    let text = fs::read_to_string(root().join("config/operating.md")).expect("readable");
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    let lines = first_column(&text, "## What log lines mean");
    assert!(lines.len() > 15, "{lines:?}");
    for line in lines {
        assert!(code.contains(&format!("\"{line}\"")), "no such log line: {line}");
    }
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let text = fs::read_to_string(root().join("config/operating.md")).expect("readable");
    let code = fs::read_to_string(root().join("src/metrics.rs")).expect("readable");
    let (code, _) = code.split_once("#[cfg(test)]").expect("its tests");
    let documented = first_column(&text, "## Watching it");
    let documented: Vec<&str> = documented.iter().filter_map(|name| name.strip_prefix("stsrelay_")).collect();
    let bare = |name: &str| {
        let name = name.trim_end_matches("_total").trim_end_matches("_seconds");
        name.trim_end_matches("_bytes").to_owned()
    };
    for name in &documented {
        assert!(code.contains(&format!("\"{}\"", bare(name))), "no such metric: {name}");
    }
    let registered = code.split("registry.register").skip(1).filter_map(|rest| rest.split('"').nth(1));
    for name in registered {
        assert!(text.contains(&format!("`stsrelay_{name}")), "not documented: {name}");
    }
}

#[test]
fn the_package_has_the_version_of_the_program() {
    let changelog = fs::read_to_string(root().join("config/debian/changelog")).expect("readable");
    let expected = format!("stsrelay ({}-", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&expected), "config/debian/changelog: {changelog}");
}

#[test]
fn every_extension_has_the_tests_that_its_table_names() {
    let text = fs::read_to_string(root().join("config/operating.md")).expect("readable");
    let (section, _) = text.split_once("## Under attack").expect("the heading is there");
    let section = section.split("## What clients may say").nth(1).expect("the heading is there");
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    sources(&root().join("tests"), &mut code);
    let mut tests = 0;
    // Names of tests are sentences; other words in backquotes are not.
    for name in section.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() > 3) {
        assert!(code.contains(&format!("fn {name}(")), "no such test: {name}");
        tests += 1;
    }
    assert!(tests > 20, "{tests}");
    // Each keyword that EHLO can name has a row.
    let commands = fs::read_to_string(root().join("src/submission/session/commands.rs")).expect("readable");
    let hello = commands.split("fn hello").nth(1).and_then(|rest| rest.split("fn starttls").next());
    let hello = hello.expect("the reply to EHLO");
    let words = hello.split(|c: char| !c.is_ascii_alphanumeric());
    let upper = |word: &&str| {
        word.len() > 2
            && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
            && word.chars().any(|c| c.is_ascii_uppercase())
    };
    let keywords: Vec<&str> =
        words.filter(upper).filter(|word| !["RCPTMAX", "RFC", "TLS"].contains(word)).collect();
    assert!(keywords.len() > 9, "{keywords:?}");
    for keyword in keywords {
        assert!(section.contains(&format!("| `{keyword}` ")), "no row for {keyword}");
    }
}

//! Holds the arrow table of `src/lib.rs` true: a module imports only rows below its own.

use std::fs;
use std::path::{Path, PathBuf};

/// The table as printed in the docs of `src/lib.rs`, top row first.
fn rows() -> Vec<Vec<String>> {
    let lib = fs::read_to_string(source().join("lib.rs")).expect("src/lib.rs is readable");
    let table = lib.split("//! # Who may import whom").nth(1).expect("lib.rs has the table");
    let block =
        table.split("```text").nth(1).and_then(|rest| rest.split("```").next()).expect("a text block");
    block
        .lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.split('|').map(|name| name.trim().to_owned()).collect())
        .collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            out.push(path);
        }
    }
}

/// The top-level module a file belongs to.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(source()).expect("below src");
    let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Every `crate::NAME` of a file outside comments.
fn imports(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn every_import_points_downwards() {
    let rows = rows();
    let row_of = |name: &str| rows.iter().position(|row| row.iter().any(|module| module == name));
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    let mut checked = 0;
    let mut wrong = Vec::new();
    for path in files {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let row = row_of(&module).unwrap_or_else(|| panic!("module {module} is not in the table of lib.rs"));
        let text = fs::read_to_string(&path).expect("source is readable");
        for import in imports(&text).into_iter().filter(|import| *import != module) {
            let Some(target) = row_of(&import) else { continue };
            checked += 1;
            if target <= row {
                wrong.push(format!("{}: {module} imports {import}", path.display()));
            }
        }
    }
    assert!(checked > 50, "the test found only {checked} imports: is it still reading the code?");
    assert!(wrong.is_empty(), "imports against the table:\n{}", wrong.join("\n"));
}

#[test]
fn each_dependency_is_named_in_its_folder_only() {
    let homes = [
        ("samotop_core", "submission"),
        ("sled", "store"),
        ("rustix", "store"),
        ("hickory_resolver", "net"),
        ("reqwest", "net"),
        ("mail_auth", "reporting"),
        ("mail_parser", "tlsrpt"),
        ("rawzip", "tlsrpt"),
        ("figment", "config"),
        ("axum", "admin"),
        ("maud", "admin"),
        ("listenfd", "daemon"),
        ("prometheus_client", "metrics"),
    ];
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).expect("source is readable");
        let code: String =
            text.lines().filter_map(|line| line.split("//").next()).collect::<Vec<_>>().join("\n");
        for (name, home) in homes {
            let named = code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"));
            assert!(!named || module_of(&path) == home, "{} names {name}", path.display());
        }
    }
}

//! `stsrelay report read` as an operator uses it: on files, folders, mailboxes and standard input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/foreign-reports")
}

fn read(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stsrelay"));
    command.args(["report", "read"]).args(arguments).current_dir(fixtures()).env_clear();
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

#[test]
fn reports_are_told_in_tables_within_a_hundred_columns() {
    let output = read(&["google.json", "microsoft.json", "rfc8460-appendix-b.json"]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(printed.lines().all(|line| line.chars().count() <= 100), "{printed}");
    for wanted in [
        "2026-11-21  Google Inc.",
        "2026-11-21  Microsoft Corporation",
        "departs from RFC 8460: policy-string-packed, date-without-zone",
        "2016-04-01T00:00Z", // of nobody: the day is told as a day
        "3 reports, 5702 sessions, 307 failed (5.38 %)",
        "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
    ] {
        let there = printed.contains(wanted);
        assert_eq!(there, !wanted.contains("T00:00Z"), "{wanted}\n{printed}");
    }
    let failures: Vec<&str> = printed.lines().skip_while(|line| !line.starts_with("FAILURE")).collect();
    assert!(failures[1].starts_with("starttls-not-supported"), "the most frequent first: {printed}");
    let domain = printed.lines().find(|line| line.starts_with("company-y.example")).unwrap();
    let cells: Vec<&str> = domain.split_whitespace().collect();
    assert_eq!(cells, ["company-y.example", "sts", "1", "5629", "303", "5.38", "%"]);
}

#[test]
fn a_folder_is_read_with_everything_in_it_and_what_is_broken_is_named() {
    let output = read(&["."]);
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for broken in ["cut-short.json:", "cut-short.json.gz:", "mail-broken.eml:"] {
        assert!(errors.contains(broken), "{broken}\n{errors}");
    }
    assert_eq!(errors.lines().count(), 3, "{errors}");
    assert!(printed.contains("duplicates not counted"), "{printed}");
    for out in [&printed, &errors] {
        let steering = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!out.chars().any(steering), "{out}");
    }
    assert!(printed.lines().all(|line| line.chars().count() <= 100), "{printed}");
}

#[test]
fn json_is_one_object_a_line_and_adds_up() {
    let output = read(&["--json", "inbox.mbox", "mail-base64.eml", "google.json", "reports.zip"]);
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let reports = of_kind(&lines, "report");
    assert_eq!((reports.len(), of_kind(&lines, "duplicate").len()), (4, 2));
    assert_eq!((&reports[0]["file"], &reports[0]["place"]), (&"inbox.mbox".into(), &"message 1".into()));
    assert_eq!(reports[0]["policies"][0]["failure-details"][0]["result-type"], "validation-failure");
    let duplicate = of_kind(&lines, "duplicate")[0];
    assert_eq!((&duplicate["file"], &duplicate["same-content"]), (&"mail-base64.eml".into(), &true.into()));
    let total = of_kind(&lines, "total")[0];
    assert_eq!((&total["reports"], &total["duplicates"]), (&4.into(), &2.into()));
    let of = |kind: &str, key: &str| -> u64 {
        of_kind(&lines, kind).iter().map(|line| line[key].as_u64().unwrap()).sum()
    };
    for key in ["successful", "failed"] {
        assert_eq!(of("report", key), total[key].as_u64().unwrap(), "{key}");
        assert_eq!(of("organization", key), of("policy-domain", key), "{key}");
        assert_eq!(of("organization", key), total[key].as_u64().unwrap(), "{key}");
    }
    assert_eq!(of("failure", "sessions"), total["failed"].as_u64().unwrap());
}

#[test]
fn standard_input_is_a_file_too() {
    let feed = |bytes: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stsrelay"))
            .args(["report", "read", "-", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child.wait_with_output().unwrap()
    };
    for name in ["mail-forwarded.eml", "damaged-end.json.gz", "utf16.json"] {
        let output = feed(&fs::read(fixtures().join(name)).unwrap());
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
        assert_eq!(of_kind(&lines(&output), "report").len(), 1, "{name}");
    }
    let output = feed(b"nothing of the kind");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(of_kind(&lines(&output), "error").len(), 1);
}

#[test]
fn a_maildir_is_read_but_for_what_is_not_delivered_yet() {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in [
        ("new/1.a:2,", "mail-base64.eml"),
        ("cur/2.b:2,S", "mail-forwarded.eml"),
        ("cur/3.c:2,S", "mail-unrelated.eml"),
        ("tmp/4.d", "mail-quoted-printable.eml"),
        (".Reports/cur/5.e:2,", "mail-body-only.eml"),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(fixtures().join(file), path).unwrap();
    }
    std::os::unix::fs::symlink(folder.path(), folder.path().join("cur/loop")).unwrap();
    let output = read(&["--json", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(of_kind(&lines(&output), "report").len(), 3);
}

#[test]
fn exit_codes_tell_what_became_of_it() {
    let code = |arguments: &[&str]| {
        let output = read(arguments);
        let errors = text(&output.stderr);
        assert_eq!(errors.is_empty(), output.status.code() == Some(0), "{arguments:?}: {errors}");
        output.status.code().unwrap()
    };
    assert_eq!(code(&["google.json"]), 0);
    assert_eq!(code(&["google.json", "no-report.json"]), 1);
    assert_eq!(code(&["mail-unrelated.eml"]), 1);
    assert_eq!(code(&["google.json", "not-there.json"]), 2);
    assert_eq!(code(&[]), 64);
    let empty = tempfile::tempdir().unwrap();
    let output = read(&[empty.path().to_str().unwrap()]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(1), "no TLS report was found\n".to_owned())
    );
}

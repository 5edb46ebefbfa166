//! The command line without a daemon: help, exit codes, offline verbs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn stsrelay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stsrelay")).args(arguments).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_is_printed_for_every_verb_within_a_hundred_columns() {
    for verb in [
        &[][..],
        &["serve"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
        &["queue"],
        &["queue", "list"],
        &["queue", "show"],
        &["queue", "stats"],
        &["queue", "retry"],
        &["queue", "hold"],
        &["queue", "release"],
        &["queue", "delete"],
        &["queue", "bounce"],
        &["queue", "freeze"],
        &["queue", "thaw"],
        &["queue", "check"],
        &["queue", "export"],
        &["queue", "import"],
        &["policy"],
        &["policy", "show"],
        &["policy", "list"],
        &["policy", "refresh"],
        &["policy", "forget"],
        &["policy", "changes"],
        &["evidence"],
        &["explain"],
        &["check"],
        &["publish"],
        &["report"],
        &["report", "list"],
        &["report", "show"],
        &["report", "preview"],
        &["report", "send"],
        &["report", "read"],
        &["report", "resend"],
        &["report", "targets"],
        &["report", "forgive"],
        &["report", "digest"],
        &["user"],
        &["user", "hash"],
    ] {
        let mut arguments = verb.to_vec();
        arguments.push("--help");
        let output = stsrelay(&arguments);
        let help = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{verb:?}");
        assert!(help.contains("Usage: stsrelay"), "{verb:?}: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{verb:?}: {help}");
    }
    assert_eq!(stsrelay(&["--version"]).status.code(), Some(0));
}

#[test]
fn pages_and_completions_are_written_for_packages() {
    let folder = tempfile::tempdir().unwrap();
    for (what, some) in [("man", "stsrelay-queue-list.8"), ("completions", "stsrelay.bash")] {
        let to = folder.path().join(what);
        let output = stsrelay(&["generate", what, to.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(to.join(some).exists(), "{}", text(&output.stdout));
    }
    assert!(!text(&stsrelay(&["--help"]).stdout).contains("generate"), "it is not for operators");
}

#[test]
fn wrong_arguments_are_64() {
    for arguments in [
        &[][..],
        &["fly"],
        &["queue"],
        &["queue", "delete"],
        &["queue", "delete", "--all", "--sender", "a@b.example"],
        &["queue", "delete", "1-00000001", "--all"],
        &["queue", "show", "not-an-id!"],
        &["queue", "list", "--recipient-domain", "a..b"],
        &["policy", "show", "-"],
        &["explain"],
        &["explain", "a@b@c"],
        &["check", "a..b"],
        &["publish", "a.example", "--mode", "testing"],
        &["publish", "a.example", "--mode", "strict", "--mx", "mx.a.example"],
        &["publish", "a.example", "--mode", "testing", "--offline", "--mx", "192.0.2.1"],
        &["publish", "a.example", "--mode", "none", "--offline", "--rua", "http://a.example/"],
        &["report", "send", "--day", "yesterday"],
        &["report", "show", "x@y"],
        &["report", "show", "a.example", "--raw", "--json"],
        &["report", "digest", "--day", "2026-13-01"],
        &["report", "read"],
        &["user", "hash", "a b"],
        &["serve", "--conf", "x"],
    ] {
        let output = stsrelay(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_unreachable_daemon_is_2_and_its_socket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let set = format!("admin.socket={}", socket.display());
    for verb in [
        &["queue", "list"][..],
        &["queue", "list", "--json"],
        &["queue", "stats"],
        &["queue", "retry", "--all"],
        &["policy", "list"],
        &["policy", "refresh", "example.org"],
        &["policy", "changes"],
        &["evidence", "1-00000001"],
        &["explain", "a@example.org"],
        &["explain", "example.org", "--connect", "--json"],
        &["report", "list"],
        &["report", "send"],
        &["report", "targets"],
        &["report", "digest", "--json"],
    ] {
        let mut arguments = verb.to_vec();
        arguments.extend(["--set", &set]);
        let output = stsrelay(&arguments);
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {line}");
        assert!(line.contains(socket.to_str().unwrap()) && line.lines().count() == 1, "{verb:?}: {line}");
        assert!(output.stdout.is_empty(), "{verb:?}");
    }
}

#[test]
fn a_wrong_configuration_is_78_for_every_verb() {
    for verb in [&["queue", "list"][..], &["policy", "list"], &["config", "show"], &["serve"]] {
        let mut arguments = verb.to_vec();
        arguments.extend(["--set", "admin.sockt=x"]);
        let output = stsrelay(&arguments);
        assert_eq!(output.status.code(), Some(78), "{verb:?}");
        assert_eq!(
            text(&output.stderr),
            "stsrelay: command line: admin.sockt: unknown key; the nearest known key is \"admin.socket\"\n"
        );
    }
}

#[test]
fn publish_needs_neither_daemon_nor_dns_nor_configuration() {
    let arguments = ["publish", "a.example", "--mx", "mx.a.example", "*.b.example", "--mode", "testing"];
    let output = stsrelay(&[&arguments[..], &["--rua", "mailto:tls@a.example", "--offline"]].concat());
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for part in ["mode: testing\nmx: mx.a.example\nmx: *.b.example\n", "# nginx", "# Apache", "# Caddy"] {
        assert!(printed.contains(part), "{printed}");
    }
    let output = stsrelay(&["publish", "a.example", "--mode", "none", "--offline", "--json"]);
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["records"][0]["name"], "_mta-sts.a.example");
    assert_eq!(made["records"].as_array().unwrap().len(), 1);
    assert!(made["warnings"][0].as_str().unwrap().contains("--rua"), "{made}");
}

#[test]
fn config_show_tells_every_origin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stsrelay.toml");
    fs::write(&file, "[server]\nhostname = \"relay.example.org\"\n").unwrap();
    let arguments =
        ["config", "show", "--json", "--config", file.to_str().unwrap(), "--set", "log.level=debug"];
    let output = stsrelay(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let of = |key: &str| {
        text(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|line| line["key"] == key)
            .unwrap_or_else(|| panic!("{key} is not shown"))
    };
    assert_eq!(of("server.hostname")["origin"], file.to_str().unwrap());
    assert_eq!(of("log.level")["origin"], "command line");
    assert_eq!(of("listener[0].name")["origin"], "default");
    assert_eq!(of("delivery.timeouts.dot")["value"], "10m");
}

#[test]
fn a_shown_configuration_can_be_pasted_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stsrelay.toml");
    fs::write(
        &file,
        "[server]\nhostname = \"relay.example.org\"\n[[policy.override]]\ndomain = \"example.net\"\n\
         require = \"ignore-sts\"\nuntil = \"2027-01-31\"\nreason = \"ticket \\\"4711\\\"\"\n",
    )
    .unwrap();
    let shown = stsrelay(&["config", "show", "--config", file.to_str().unwrap()]);
    let again = folder.path().join("again.toml");
    fs::write(&again, &shown.stdout).unwrap();
    let load =
        |file| stsrelay::config::Sources { file: Some(file), ..Default::default() }.load().unwrap().config;
    assert_eq!(load(again), load(file));
}

#[test]
fn user_hash_prints_a_line_that_verifies() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stsrelay"))
        .args(["user", "hash", "app@example.org"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all("pässword 1\n".as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let line = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(line.starts_with("app@example.org:$argon2id$v=19$"), "{line}");
    assert_eq!(line.lines().count(), 1);

    let hash = |password: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stsrelay"))
            .args(["user", "hash", "app", "--scram"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let both = hash("pässword 1\n");
    let users = stsrelay::submission::Users::parse(&text(&both.stdout)).unwrap();
    assert_eq!((users.len(), users.knows_scram(), users.without_scram().len()), (1, true, 0));
    // RFC 4013 §2.3: a control character.
    let forbidden = hash("pass\u{7}word\n");
    assert_eq!(forbidden.status.code(), Some(64), "{}", text(&forbidden.stdout));

    let empty = Command::new(env!("CARGO_BIN_EXE_stsrelay"))
        .args(["user", "hash", "app"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(empty.status.code(), Some(64));
}

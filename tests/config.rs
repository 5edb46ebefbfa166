//! Wrong configurations: one line with file, key, what is wrong and what would be right; exit 78;
//! nothing started. And the shipped files: every key listed, at its default.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stsrelay::config::{Config, Sources, check, load};
use tempfile::TempDir;

/// A directory with `stsrelay.toml` holding `text`.
fn folder(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stsrelay.toml");
    fs::write(&file, text).unwrap();
    fs::write(folder.path().join("password"), "s3cret\n").unwrap();
    (folder, file)
}

fn stsrelay(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stsrelay"));
    command.args(arguments).current_dir(folder).env_clear();
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A complete configuration; `more` is added to it.
fn with(more: &str) -> String {
    format!("{}\n{more}", BASE.trim())
}

const BASE: &str = r#"
[server]
hostname = "relay.example.org"
data_dir = "var"
[admin]
socket = "var/admin.sock"
"#;

/// `server` comes first in `BASE`, so a bad `[server]` needs a text of its own.
fn server(line: &str) -> String {
    format!("[server]\ndata_dir = \"var\"\n{line}\n")
}

/// A route with a password.
fn login(next_hop: &str, file: &str, more: &str) -> String {
    format!(
        "[[route]]\ndomain = \"*\"\nnext_hop = \"{next_hop}\"\nusername = \"me\"\npassword_file = \"{file}\"\n{more}"
    )
}

#[test]
fn each_bad_configuration_is_one_line_and_starts_nothing() {
    let rows: &[(&str, String, &str)] = &[
        (
            "HTTP nowhere",
            with("http = \"8025\""),
            "stsrelay.toml: admin.http: \"8025\" is no address with a port such as 127.0.0.1:8025, and not unix:/PATH",
        ),
        (
            "HTTP on a socket somewhere",
            with("http = \"unix:var/http.sock\""),
            "stsrelay.toml: admin.http: \"unix:var/http.sock\": a path that begins with / comes after unix:",
        ),
        (
            "HTTP for everybody",
            with("http = \"[::]:8025\""),
            "stsrelay.toml: admin.http: [::]:8025 can be reached from elsewhere; set admin.token_file, or listen on \
             127.0.0.1",
        ),
        // Shapes.
        (
            "a mistyped key",
            with("[tlsrpt]\nform = \"a@example.org\""),
            "stsrelay.toml: tlsrpt.form: unknown key; the nearest known key is \"tlsrpt.from\"",
        ),
        (
            "a target that is none",
            with("[tlsrpt]\ndeny_targets = [\"https://x.example/\"]"),
            "stsrelay.toml: tlsrpt.deny_targets[0]: \"https://x.example/\" is no target; write \"user@example.net\", \
             \"example.net\" or \"*.example.net\"",
        ),
        (
            "too many targets of a record",
            with("[tlsrpt]\ntargets_per_domain = 11"),
            "stsrelay.toml: tlsrpt.targets_per_domain: must be from 1 to 10",
        ),
        (
            "no reports to anybody",
            with("[tlsrpt]\nreports_per_target = 0"),
            "stsrelay.toml: tlsrpt.reports_per_target: must be at least 1",
        ),
        (
            "left alone after no failure",
            with("[tlsrpt]\nsuppress_after = 0"),
            "stsrelay.toml: tlsrpt.suppress_after: must be at least 1",
        ),
        (
            "left alone for no time",
            with("[tlsrpt]\nsuppress_for = \"0s\""),
            "stsrelay.toml: tlsrpt.suppress_for: must be at least 1s",
        ),
        (
            "a digest from nobody",
            with("[digest]\nto = [\"ops@example.org\"]"),
            "stsrelay.toml: digest.from: is not set, and neither is tlsrpt.from; one must name the sender",
        ),
        (
            "a digest after its day",
            with("[digest]\nafter = \"25h\""),
            "stsrelay.toml: digest.after: must be at most 24h",
        ),
        (
            "a second signature without the first",
            with("[tlsrpt]\ndkim_second_selector = \"s\"\ndkim_second_key_file = \"k\""),
            "stsrelay.toml: tlsrpt.dkim_second_selector: is for a second signature; the first needs dkim_domain, \
             dkim_selector and dkim_key_file",
        ),
        (
            "half a second signature",
            with("[tlsrpt]\ndkim_second_key_file = \"k\"\ndkim_domain = \"a.b\"\ndkim_selector = \"s\""),
            "stsrelay.toml: tlsrpt.dkim_key_file: is missing; DKIM needs dkim_domain, dkim_selector and dkim_key_file\n\
             stsrelay: stsrelay.toml: tlsrpt.dkim_second_selector: is missing; a second signature needs \
             dkim_second_selector and dkim_second_key_file",
        ),
        (
            "a mistyped section",
            with("[deliver]\nsmtp_port = 25"),
            "stsrelay.toml: deliver: unknown key; the nearest known key is \"delivery\"",
        ),
        (
            "a mistyped key in an array of tables",
            with("[[listener]]\nname = \"a\"\nlisten = []\nauht = \"none\""),
            "stsrelay.toml: listener[0].auht: unknown key; the nearest known key is \"listener.auth\"",
        ),
        (
            "a wrong type",
            with("[delivery]\nsmtp_port = \"smtp\""),
            "stsrelay.toml: delivery.smtp_port: found string \"smtp\", expected u16",
        ),
        (
            "a wrong word",
            with("[[listener]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\"]\ntls = \"startls\""),
            "stsrelay.toml: listener[0].tls: \"startls\" is none of none, starttls, implicit",
        ),
        (
            "a missing key",
            with("[[listener]]\nname = \"a\""),
            "stsrelay.toml: listener[0].listen: is missing",
        ),
        (
            "a bad duration",
            with("[delivery]\nretry = [\"5m\", \"soon\"]"),
            "stsrelay.toml: delivery.retry[1]: \"soon\" is not a duration; write it like \"30s\", \"5m\", \"4h\" or \"5d\"",
        ),
        (
            "a bad size",
            with("[limits]\nmessage_size = \"50XB\""),
            "stsrelay.toml: limits.message_size: \"50XB\" is not a size; write it like \"50MB\" or \"64KiB\"",
        ),
        (
            "a bad network",
            with("[network]\nallow_private_destinations = [\"10.0.0.0/40\"]"),
            "stsrelay.toml: network.allow_private_destinations[0]: \"10.0.0.0/40\" is not a network; \
             write it like \"10.0.0.0/8\" or \"::1/128\"",
        ),
        (
            "a bad day",
            with("[[policy.override]]\ndomain = \"example.net\"\nrequire = \"encrypt\"\nuntil = \"soon\""),
            "stsrelay.toml: policy.override[0].until: \"soon\" is not a day; write it like \"2027-01-31\"",
        ),
        (
            "a pattern that is none",
            with("[[policy.override]]\ndomain = \".example.net\"\nrequire = \"encrypt\""),
            "stsrelay.toml: policy.override[0].domain: \".example.net\": empty label in domain name; \
             write \"example.net\" or \"*.example.net\"",
        ),
        // Meanings.
        (
            "a rule for nobody",
            with("[[policy.override]]\nrequire = \"encrypt\""),
            "stsrelay.toml: policy.override[0].domain: is missing; give domain = \"example.net\", \
             \"*.example.net\" for all below, or mx = \"mx.example.net\"",
        ),
        (
            "a rule for a domain and a host",
            with(
                "[[policy.override]]\ndomain = \"example.net\"\nmx = \"mx.example.net\"\nrequire = \"encrypt\"",
            ),
            "stsrelay.toml: policy.override[0].mx: is set beside domain; make a table of its own for the host",
        ),
        (
            "two rules for one tree",
            with(
                "[[policy.override]]\ndomain = \"*.example.net\"\nrequire = \"ignore-sts\"\n\
                 [[policy.override]]\ndomain = \"*.EXAMPLE.net\"\nrequire = \"verify\"",
            ),
            "stsrelay.toml: policy.override[1].domain: *.example.net has a rule already: policy.override[0] \
             says \"ignore-sts\"; keep one of them",
        ),
        (
            "DANE demanded and switched off",
            with("[policy]\ndane = false\n[[policy.override]]\nmx = \"mx.example.net\"\nrequire = \"dane\""),
            "stsrelay.toml: policy.override[0].require: \"dane\" cannot be met while policy.dane is off: mail for \
             mx mx.example.net would never go",
        ),
        (
            "a next hop that is none",
            with("[[route]]\ndomain = \"*\"\nnext_hop = \"smart example\""),
            "stsrelay.toml: route[0].next_hop: \"smart example\" is no next hop: domain name has a bad label: \
             \"smart example\"; write \"smart.example.org\" for its MX hosts, \"[smart.example.org]:587\" for that \
             host, \"[192.0.2.1]:25\", or \"direct\"",
        ),
        (
            "two routes for one domain",
            with(
                "[[route]]\ndomain = \"*\"\nnext_hop = \"a.example\"\n[[route]]\ndomain = \"*\"\n\
                 next_hop = \"[b.example]\"",
            ),
            "stsrelay.toml: route[1].domain: * has a route already: route[0]; keep one of them",
        ),
        (
            "a name without password",
            with("[[route]]\ndomain = \"*\"\nnext_hop = \"[a.example]:587\"\nusername = \"me\""),
            "stsrelay.toml: route[0].password_file: is missing; username is set",
        ),
        (
            "a password that is not there",
            with(&login("[a.example]:587", "none.password", "")),
            "stsrelay.toml: route[0].password_file: none.password: No such file or directory (os error 2)",
        ),
        (
            "a password for whoever answers",
            with(&login("[a.example]:587", "password", "require = \"encrypt\"\n")),
            "stsrelay.toml: route[0].require: would send the password to a server that is not authenticated; \
             use \"verify\" or \"dane\"",
        ),
        (
            "a password for an address",
            with(&login("[1.1.1.1]:587", "password", "")),
            "stsrelay.toml: route[0].next_hop: is an address, so the server cannot be authenticated, and no \
             password is sent to it; give the name of the host, \"[smart.example.org]:587\"",
        ),
        (
            "a demand that no address meets",
            with("[[route]]\ndomain = \"*\"\nnext_hop = \"[1.1.1.1]:25\"\nrequire = \"verify\""),
            "stsrelay.toml: route[0].require: cannot be met: next_hop is an address, and no certificate or TLSA \
             record is for it; give the name of the host",
        ),
        (
            "an exception in place of a demand",
            with("[[route]]\ndomain = \"*\"\nnext_hop = \"a.example\"\nrequire = \"ignore-sts\""),
            "stsrelay.toml: route[0].require: \"ignore-sts\" is no demand; say it in a [[policy.override]] for the \
             next hop's domain",
        ),
        (
            "a hop inside that is not allowed",
            with("[[route]]\ndomain = \"*\"\nnext_hop = \"[10.0.0.1]:25\""),
            "stsrelay.toml: route[0].next_hop: cannot be connected to: 10.0.0.1 is a private address (RFC 1918) and \
             not globally routable; network.allow_private_destinations can allow it",
        ),
        (
            "a demand on no hop",
            with("[[route]]\ndomain = \"a.example\"\nnext_hop = \"direct\"\nrequire = \"verify\""),
            "stsrelay.toml: route[0].require: is set, and the route is \"direct\": there is no hop it is about",
        ),
        (
            "no name",
            server(""),
            "stsrelay.toml: server.hostname: is not set; give this relay's fully qualified name, \
             for example \"relay.example.org\"",
        ),
        (
            "localhost",
            server("hostname = \"localhost\""),
            "stsrelay.toml: server.hostname: \"localhost\" is not a fully qualified name that others could resolve",
        ),
        (
            "a short name",
            server("hostname = \"relay\""),
            "stsrelay.toml: server.hostname: \"relay\" is not a fully qualified name that others could resolve",
        ),
        (
            "not a name",
            server("hostname = \"re lay.example\""),
            "stsrelay.toml: server.hostname: domain name has a bad label: \"re lay\"",
        ),
        (
            "a data directory that is a file",
            with("").replace("data_dir = \"var\"", "data_dir = \"stsrelay.toml\""),
            "stsrelay.toml: server.data_dir: stsrelay.toml is not a directory",
        ),
        (
            "TLS without certificate",
            with("[[listener]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\"]\ntls = \"starttls\""),
            "stsrelay.toml: listener[0].tls: TLS needs a certificate; set tls.certificate_file and \
             tls.key_file, or tls = \"none\"",
        ),
        (
            "AUTH without users",
            with(
                "[[listener]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\"]\nauth = \"optional\"\nallow_plaintext_auth = true",
            ),
            "stsrelay.toml: listener[0].auth: AUTH needs users; set auth.users_file (lines made by \
             `stsrelay user hash`), or auth = \"none\"",
        ),
        (
            "client certificates without TLS",
            with(
                "[[listener]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\"]\nclient_certificates = \"optional\"\n\
                 trusted_networks = [\"::1\"]",
            ),
            "stsrelay.toml: listener[0].client_certificates: needs TLS; set tls = \"starttls\" or \"implicit\"",
        ),
        (
            "a certificate that no client could have",
            with("[[auth.client_certificate]]\nname = \"app\""),
            "stsrelay.toml: auth.client_certificate[0].name: has neither sha256 nor subject_names, so no \
             certificate fits",
        ),
        (
            "names that nobody vouches for",
            with("[[auth.client_certificate]]\nname = \"app\"\nsubject_names = [\"app.example.org\"]"),
            "stsrelay.toml: auth.client_certificate[0].subject_names: count only where an authority vouches for \
             them; set auth.client_ca_file",
        ),
        (
            "two rules for a user",
            with("[[auth.user]]\nname = \"app\"\n[[auth.user]]\nname = \"app\""),
            "stsrelay.toml: auth.user[1].name: another table is for \"app\" already",
        ),
        (
            "no mistake allowed",
            with("[auth]\nfailures_free = 0"),
            "stsrelay.toml: auth.failures_free: must be at least 1: everybody mistypes",
        ),
        (
            "two listeners on one port",
            with(
                "[[listener]]\nname = \"a\"\nlisten = [\"127.0.0.1:2525\"]\n\
                 [[listener]]\nname = \"b\"\nlisten = [\"0.0.0.0:2525\"]",
            ),
            "stsrelay.toml: listener[1].listen: 0.0.0.0:2525 overlaps 127.0.0.1:2525 of listener \"a\"",
        ),
        (
            "reports without sender",
            with("[tlsrpt]\nenabled = true"),
            "stsrelay.toml: tlsrpt.from: is not set, but reports are enabled; set it, or tlsrpt.enabled = false",
        ),
        (
            "half a DKIM set-up",
            with("[tlsrpt]\nfrom = \"a@example.org\"\ndkim_domain = \"example.org\"\ndkim_selector = \"s\""),
            "stsrelay.toml: tlsrpt.dkim_key_file: is missing; DKIM needs dkim_domain, dkim_selector and dkim_key_file",
        ),
        (
            "an AD bit from afar",
            with("[dns]\nnameservers = [\"192.0.2.1\"]\ndnssec = \"trust-ad\""),
            "stsrelay.toml: dns.dnssec: \"trust-ad\" needs a resolver on this machine, and 192.0.2.1:53 is not: \
             DANE would be off; use a resolver on this machine, \"validate\" or \"off\"",
        ),
        (
            "no waits",
            with("[delivery]\nretry = []"),
            "stsrelay.toml: delivery.retry: is empty; give at least one wait, for example [\"5m\"]",
        ),
        (
            "an endless loop",
            with("[delivery]\nretry = [\"0s\"]"),
            "stsrelay.toml: delivery.retry: each wait must be at least 1s",
        ),
        (
            "a mistyped level",
            with("[log]\nlevel = \"inof\""),
            "stsrelay.toml: log.level: \"inof\" is none of off, error, warn, info, debug, trace, and no filter of these",
        ),
    ];
    for (what, text, expected) in rows {
        for verb in [&["serve"][..], &["config", "check"]] {
            let (folder, _) = folder(text);
            let mut arguments = verb.to_vec();
            arguments.extend(["--config", "stsrelay.toml"]);
            let output = stsrelay(folder.path(), &arguments);
            assert_eq!(stderr(&output), format!("stsrelay: {expected}\n"), "{what}, {verb:?}");
            assert_eq!(output.status.code(), Some(78), "{what}, {verb:?}");
            assert!(!folder.path().join("var").exists(), "{what}: something was started");
        }
    }
}

#[test]
fn unreadable_files_are_named_with_their_key() {
    let listener = "[[listener]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\"]\ntls = \"starttls\"\n";
    let rows = [
        (
            with(&format!("{listener}[tls]\ncertificate_file = \"none.pem\"\nkey_file = \"none.key\"")),
            "stsrelay.toml: tls.certificate_file: ",
            "none.pem",
        ),
        (with("[tls]\nextra_roots_file = \"none.pem\""), "stsrelay.toml: tls.extra_roots_file: ", "none.pem"),
        (with("[auth]\nusers_file = \"none\""), "stsrelay.toml: auth.users_file: ", "none"),
        (with("[auth]\nusers_file = \"users\""), "stsrelay.toml: auth.users_file: ", "users"),
        (
            with(
                "[tlsrpt]\nfrom = \"a@example.org\"\ndkim_domain = \"example.org\"\ndkim_selector = \"s\"\n\
                 dkim_key_file = \"none.key\"",
            ),
            "stsrelay.toml: tlsrpt.dkim_key_file: ",
            "none.key",
        ),
        (
            with(
                "[tlsrpt]\nfrom = \"a@example.org\"\ndkim_domain = \"example.org\"\ndkim_selector = \"s\"\n\
                 dkim_key_file = \"pkcs1.key\"",
            ),
            "stsrelay.toml: tlsrpt.dkim_key_file: ",
            "PKCS#8",
        ),
    ];
    for (text, start, word) in rows {
        let (folder, _) = folder(&text);
        fs::write(folder.path().join("users"), "somebody\n").unwrap();
        fs::write(
            folder.path().join("pkcs1.key"),
            "-----BEGIN RSA PRIVATE KEY-----\nMAA=\n-----END RSA PRIVATE KEY-----\n",
        )
        .unwrap();
        let output = stsrelay(folder.path(), &["serve", "--config", "stsrelay.toml"]);
        let line = stderr(&output);
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.starts_with(&format!("stsrelay: {start}")) && line.contains(word), "{line}");
        assert_eq!(output.status.code(), Some(78), "{line}");
    }
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_said_in_one_line() {
    let (folder, file) = folder("[server\nhostname = 1\n");
    let output = stsrelay(folder.path(), &["config", "check", "--config", "stsrelay.toml"]);
    let line = stderr(&output);
    assert!(line.starts_with("stsrelay: stsrelay.toml: TOML parse error at line 1"), "{line}");
    assert_eq!((line.lines().count(), output.status.code()), (1, Some(78)));

    fs::remove_file(file).unwrap();
    let output = stsrelay(folder.path(), &["config", "check", "--config", "stsrelay.toml"]);
    let line = stderr(&output);
    assert!(line.starts_with("stsrelay: stsrelay.toml: cannot be read: No such file"), "{line}");
    assert_eq!((line.lines().count(), output.status.code()), (1, Some(78)));
}

#[test]
fn later_layers_win_and_errors_name_the_layer() {
    let (folder, file) = folder(&with("[delivery]\nsmtp_port = 1\nconcurrency = 1\nlifetime = \"1d\""));
    let drop_ins = folder.path().join("stsrelay.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("10-a.toml"), "[delivery]\nsmtp_port = 2\nconcurrency = 2\n").unwrap();
    fs::write(drop_ins.join("20-b.toml"), "[delivery]\nsmtp_port = 3\n").unwrap();
    fs::write(drop_ins.join("notes.txt"), "not read").unwrap();
    let mut sources = Sources {
        file: Some(file),
        environment: vec![
            ("STSRELAY_DELIVERY__TIMEOUTS__CONNECT".to_owned(), "7s".to_owned()),
            ("STSRELAY_DNS__NAMESERVERS".to_owned(), "[\"127.0.0.1:5353\"]".to_owned()),
            // What Kubernetes injects for a service named stsrelay is not ours.
            ("STSRELAY_PORT".to_owned(), "tcp://10.0.0.1:25".to_owned()),
        ],
        set: vec!["delivery.smtp_port=4".to_owned()],
    };
    let loaded = sources.load().unwrap();
    let delivery = &loaded.config.delivery;
    assert_eq!((delivery.smtp_port, delivery.concurrency), (4, 2));
    assert_eq!(delivery.lifetime.to_string(), "1d");
    assert_eq!(delivery.timeouts.connect.to_string(), "7s");
    assert_eq!(loaded.config.dns.nameservers[0].to_string(), "127.0.0.1:5353");
    assert_eq!(loaded.origin("delivery.smtp_port").unwrap(), "command line");
    assert!(loaded.origin("delivery.concurrency").unwrap().ends_with("stsrelay.d/10-a.toml"));
    assert!(loaded.origin("delivery.lifetime").unwrap().ends_with("stsrelay.toml"));
    assert_eq!(
        loaded.origin("delivery.timeouts.connect").unwrap(),
        "environment variable STSRELAY_DELIVERY__TIMEOUTS__CONNECT"
    );
    assert_eq!(loaded.origin("delivery.timeouts.dot"), None);

    sources.environment = vec![("STSRELAY_DELIVERY__SMPT_PORT".to_owned(), "1".to_owned())];
    assert_eq!(
        sources.load().unwrap_err().to_string(),
        "environment variable STSRELAY_DELIVERY__SMPT_PORT: delivery.smpt_port: unknown key; \
         the nearest known key is \"delivery.smtp_port\""
    );
    sources.environment.clear();
    fs::write(drop_ins.join("20-b.toml"), "[delivery]\nsmtp_port = true\n").unwrap();
    let error = sources.load().unwrap_err().to_string();
    assert!(error.contains("stsrelay.d/20-b.toml: delivery.smtp_port: found bool true"), "{error}");
}

#[test]
fn what_has_no_effect_or_is_over_is_noted() {
    let (folder, _) = folder(
        &with(
            "[admin]\ntoken_file = \"token\"\n[[policy.override]]\ndomain = \"example.net\"\n\
         require = \"encrypt\"\nuntil = \"2001-01-31\"\n",
        )
        .replacen("[admin]\nsocket = \"var/admin.sock\"\n", "", 1),
    );
    let output = stsrelay(folder.path(), &["config", "check", "--config", "stsrelay.toml"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for note in [
        "note: stsrelay.toml: policy.override[0].until: is in the past: the rule for example.net has no effect",
        "note: stsrelay.toml: admin.token_file: has no effect without admin.http",
    ] {
        assert!(text.lines().any(|line| line == note), "{note}\n{text}");
    }
}

#[test]
fn a_relay_that_heeds_no_tlsa_records_is_told_so() {
    for (section, note) in [
        (
            "[policy]\ndane = false\n",
            "policy.dane: TLSA records of mail hosts are neither looked for nor enforced",
        ),
        (
            "[dns]\ndnssec = \"off\"\n",
            "policy.dane: has no effect: dns.dnssec is off, so no TLSA record can be trusted",
        ),
        ("", ""),
    ] {
        let (folder, _) = folder(&with(section));
        let output = stsrelay(folder.path(), &["config", "check", "--config", "stsrelay.toml"]);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
        let notes: Vec<&str> = text.lines().filter(|line| line.contains("policy.dane")).collect();
        let expected =
            if note.is_empty() { Vec::new() } else { vec![format!("note: stsrelay.toml: {note}")] };
        assert_eq!(notes, expected, "{section}");
    }
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn the_shipped_file_lists_every_key_at_its_default() {
    let file = shipped("stsrelay.toml");
    let sources = Sources { file: Some(file.clone()), ..Sources::default() };
    assert_eq!(sources.load().unwrap().config, Config::default());

    // Sections become `[a.b]`, keys are lines below them; what has no default is commented out.
    let mut listed = Vec::new();
    let mut section = String::new();
    for line in fs::read_to_string(file).unwrap().lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').filter(|_| line.ends_with(']')) {
            section = name.trim_matches(['[', ']']).to_owned();
            listed.push(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            listed.push(format!("{section}.{key}"));
        }
    }
    for key in load::known_keys() {
        assert!(listed.contains(&key), "{key} is not in config/stsrelay.toml");
    }
}

#[test]
fn the_commented_examples_of_the_shipped_file_are_right() {
    let text = fs::read_to_string(shipped("stsrelay.toml")).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with("[[")
                    || rest.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')) =>
            {
                rest
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let (_folder, file) = folder(&uncommented);
    let config = Sources { file: Some(file), ..Sources::default() }.load().unwrap().config;
    assert!(config.server.hostname.is_some() && config.tlsrpt.is_enabled() && config.admin.http.is_some());
    assert_eq!(config.policy.r#override.len(), 2);
}

#[test]
fn quick_start_and_container_have_good_configurations() {
    for name in ["quickstart.toml", "container/stsrelay.toml"] {
        let file = shipped(name);
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["config", "check", "--offline", "--config", file.to_str().unwrap()];
        let output = stsrelay(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
    }
}

#[test]
fn source_addresses_are_addresses_or_tables_with_a_name() {
    let load = |text: &str| {
        let (_folder, file) =
            folder(&format!("[server]\nhostname = \"relay.example.org\"\n[delivery]\n{text}\n"));
        Sources { file: Some(file), ..Sources::default() }.load()
    };
    let good = "source_addresses = [\"127.0.0.5\", { address = \"::1\", hostname = \"out.example.org\" }]";
    let loaded = load(good).unwrap();
    let sources = &loaded.config.delivery.source_addresses;
    assert_eq!(sources[0].address.to_string(), "127.0.0.5");
    assert_eq!(sources[1].hostname.as_ref().map(|name| name.as_str()), Some("out.example.org"));
    let shown = serde_json::to_value(sources).unwrap();
    let expected = serde_json::json!(["127.0.0.5", { "address": "::1", "hostname": "out.example.org" }]);
    assert_eq!(shown, expected);
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    let findings = |text: &str| match load(text) {
        Err(error) => vec![format!("error: {}", error.text)],
        Ok(loaded) => {
            let found = check(&loaded, now);
            let lines = |kind: &str, list: Vec<stsrelay::config::ConfigError>| {
                list.into_iter()
                    .filter(|error| error.key == "delivery.source_addresses")
                    .map(|error| format!("{kind}: {}", error.text))
                    .collect::<Vec<_>>()
            };
            [lines("error", found.errors), lines("note", found.notes)].concat()
        }
    };
    assert_eq!(findings(good), Vec::<String>::new());
    for (list, words) in [
        ("\"relay\"", "is not an address"),
        ("25", "expected an address such as"),
        ("{ adress = \"127.0.0.1\" }", "unknown key"),
        ("{ hostname = \"a.example\" }", "is missing"),
        ("\"0.0.0.0\"", "error: 0.0.0.0 is not an address to send from"),
        ("\"127.0.0.5\", \"127.0.0.5\"", "error: 127.0.0.5 is listed twice"),
        ("{ address = \"127.0.0.5\", hostname = \"localhost\" }", "error: \"localhost\" (127.0.0.5) is not"),
        ("\"198.51.100.1\"", "note: 198.51.100.1 cannot be bound on this host"),
    ] {
        let found = findings(&format!("source_addresses = [{list}]"));
        assert!(found.len() == 1 && found[0].contains(words), "{list}: {found:?}");
    }
}

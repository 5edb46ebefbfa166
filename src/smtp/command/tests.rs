//! Rows for [`super`]: every command, every parameter, every way to get them wrong.

use proptest::prelude::*;

use super::parameters::{xtext_decode, xtext_encode};
use super::*;
use crate::mail::NotifyWhen;

fn good(line: &str) -> Command {
    parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line:?}: {error:?}"))
}

/// The reply's code and enhanced code.
fn bad(line: impl AsRef<[u8]>) -> String {
    let line = line.as_ref();
    match parse(line) {
        Ok(command) => panic!("{:?} is {command:?}", String::from_utf8_lossy(line)),
        Err(error) => {
            let reply = error.reply();
            format!("{} {}", reply.code, reply.enhanced.unwrap())
        }
    }
}

fn mail_of(line: &str) -> Mail {
    match good(line) {
        Command::Mail(mail) => *mail,
        other => panic!("{other:?}"),
    }
}

fn rcpt_of(line: &str) -> Rcpt {
    match good(line) {
        Command::Rcpt(rcpt) => *rcpt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn verbs_come_in_any_case_and_trailing_blanks_are_tolerated() {
    assert_eq!(good("eHlO Client.Example"), Command::Ehlo("Client.Example".into()));
    assert_eq!(good("HELO [192.0.2.1]"), Command::Helo("[192.0.2.1]".into()));
    assert_eq!(good("EHLO [IPv6:2001:db8::1]"), Command::Ehlo("[IPv6:2001:db8::1]".into()));
    assert_eq!(good("EHLO WIN_PC"), Command::Ehlo("WIN_PC".into()));
    for (line, command) in [
        ("DATA", Command::Data),
        ("data  ", Command::Data),
        ("RSET", Command::Rset),
        ("QUIT", Command::Quit),
        ("NOOP", Command::Noop),
        ("NOOP whatever", Command::Noop),
        ("VRFY someone", Command::Vrfy),
        ("EXPN list", Command::Expn),
        ("HELP", Command::Help),
        ("HELP MAIL", Command::Help),
        ("STARTTLS", Command::StartTls),
        ("BDAT 0 LAST", Command::Bdat { size: 0, last: true }),
        ("bdat 86 last", Command::Bdat { size: 86, last: true }),
        ("BDAT 100000", Command::Bdat { size: 100_000, last: false }),
        ("AUTH plain", Command::Auth { mechanism: "PLAIN".into(), initial: None }),
        ("AUTH PLAIN =", Command::Auth { mechanism: "PLAIN".into(), initial: Some("=".into()) }),
    ] {
        assert_eq!(good(line), command);
    }
}

#[test]
fn lines_that_are_no_commands_get_their_rfc_reply() {
    for (line, reply) in [
        ("", "500 5.5.1"),
        (" MAIL FROM:<a@b.c>", "500 5.5.1"),
        ("GET / HTTP/1.1", "500 5.5.1"),
        ("MAILFROM:<a@b.c>", "500 5.5.1"),
        ("TURN", "502 5.5.1"),
        ("ETRN example.org", "502 5.5.1"),
        ("EHLO", "501 5.5.4"),
        ("EHLO a b", "501 5.5.4"),
        ("EHLO a(b)", "501 5.5.4"),
        ("HELO", "501 5.5.4"),
        ("DATA x", "501 5.5.4"),
        ("RSET x", "501 5.5.4"),
        ("QUIT x", "501 5.5.4"),
        ("STARTTLS x", "501 5.5.4"),
        ("VRFY", "501 5.5.4"),
        ("EXPN", "501 5.5.4"),
        ("AUTH", "501 5.5.4"),
        ("AUTH PLAIN a b", "501 5.5.4"),
        ("AUTH !", "501 5.5.4"),
        ("BDAT", "501 5.5.4"),
        ("BDAT -1", "501 5.5.4"),
        ("BDAT 5 LAST x", "501 5.5.4"),
        ("BDAT 5 FIRST", "501 5.5.4"),
        ("BDAT 99999999999999999999999", "501 5.5.4"),
    ] {
        assert_eq!(bad(line), reply, "{line:?}");
    }
    assert_eq!(bad(format!("EHLO {}", "a".repeat(256))), "501 5.5.4");
    assert_eq!(bad("EHLO bücher.example"), "501 5.5.2");
    assert_eq!(good("VRFY grüße SMTPUTF8"), Command::Vrfy);
    assert_eq!(good("expn grüße smtputf8"), Command::Expn);
    assert_eq!(bad("VRFY grüße"), "501 5.5.2");
    assert_eq!(bad("NOOP grüße SMTPUTF8"), "501 5.5.2");
    assert_eq!(bad("NOOP\n"), "500 5.5.2");
    assert_eq!(bad("MAIL FROM:<a@b.c>\nRCPT TO:<d@e.f>"), "500 5.5.2");
    assert_eq!(bad("MAIL FROM:<a@b.c>\r"), "500 5.5.2");
    assert_eq!(bad("MAIL FROM:<a\0@b.c>"), "500 5.5.2");
    assert_eq!(bad(b"MAIL FROM:<\xff@b.c>"), "501 5.5.2");
    assert!(parse(b"BDAT x").unwrap_err().ends_session());
    assert!(!parse(b"MAIL x").unwrap_err().ends_session());
}

#[test]
fn reverse_paths_are_read_and_bad_ones_refused() {
    let path = |line: &str| mail_of(line).path.to_string();
    assert_eq!(path("MAIL FROM:<>"), "<>");
    assert_eq!(path("mail from:<A.b@Example.ORG>"), "<A.b@example.org>");
    assert_eq!(path("MAIL FROM:<\"a> b\"@example.org> SIZE=1"), "<\"a> b\"@example.org>");
    assert_eq!(path("MAIL FROM:<\"a\\\"> b\"@example.org>"), "<\"a\\\"> b\"@example.org>");
    assert_eq!(path("MAIL FROM:<@x.example,@y.example:a@b.example>"), "<a@b.example>");
    assert_eq!(path("MAIL FROM:<a@[192.0.2.1]>"), "<a@[192.0.2.1]>");
    for (line, reply) in [
        ("MAIL", "501 5.5.4"),
        ("MAIL FROM", "501 5.5.4"),
        ("MAIL FROM:", "501 5.5.4"),
        ("MAIL FROM:a@b.example", "501 5.5.4"),
        ("MAIL FROM: <a@b.example>", "501 5.5.4"),
        ("MAIL TO:<a@b.example>", "501 5.5.4"),
        ("MAIL FROM:<a@b.example", "501 5.5.4"),
        ("MAIL FROM:<a@b.example>x", "501 5.5.4"),
        ("MAIL FROM:<a@b.example>SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<a@b..c>", "501 5.1.7"),
        ("MAIL FROM:<a b@b.example>", "501 5.1.7"),
        ("MAIL FROM:<a@b@c.example>", "501 5.1.7"),
        ("MAIL FROM:<a@192.0.2.1>", "501 5.1.7"),
        ("MAIL FROM:<a>", "554 5.1.8"),
        ("MAIL FROM:<postmaster>", "554 5.1.8"),
        ("MAIL FROM:<a@localhost>", "554 5.1.8"),
    ] {
        assert_eq!(bad(line), reply, "{line:?}");
    }
    assert_eq!(bad(format!("MAIL FROM:<{}@b.example>", "a".repeat(65))), "501 5.1.7");
    assert_eq!(bad(format!("MAIL FROM:<a@{}.example>", "b.".repeat(130))), "501 5.1.7");
}

#[test]
fn paths_at_the_limits_of_the_rfc_are_taken_and_beyond_them_refused() {
    // RFC 5321 §4.5.3.1: 64 octets of local part, 255 of domain, 256 of path with its brackets.
    let label = "d".repeat(49);
    let domain = |last: usize| format!("{label}.{label}.{label}.{}.example", "d".repeat(last));
    let path = |local: usize, last: usize| format!("{}@{}", "l".repeat(local), domain(last));
    assert_eq!(path(64, 31).len(), 254);
    assert_eq!(mail_of(&format!("MAIL FROM:<{}>", path(64, 31))).path.to_string().len(), 256);
    assert_eq!(bad(format!("MAIL FROM:<{}>", path(64, 32))), "501 5.1.7");
    assert_eq!(bad(format!("RCPT TO:<{}>", path(64, 32))), "501 5.1.3");
    assert_eq!(bad(format!("RCPT TO:<{}>", path(65, 1))), "501 5.1.3");
    let quoted = format!("\"{}\"", "q".repeat(62));
    assert!(matches!(rcpt_of(&format!("RCPT TO:<{quoted}@b.example>")).to, To::Mailbox(_)));
    assert_eq!(bad(format!("RCPT TO:<\"{}\"@b.example>", "q".repeat(63))), "501 5.1.3");
    assert_eq!(bad(format!("RCPT TO:<a@{}.example>", "d".repeat(64))), "501 5.1.3");
}

#[test]
fn quoted_local_parts_stay_as_they_were_said_and_literals_are_addresses() {
    let to = |line: &str| match rcpt_of(line).to {
        To::Mailbox(mailbox) => mailbox.to_string(),
        To::Postmaster(local) => local,
    };
    for (path, kept) in [
        (r#""a b"@Example.NET"#, r#""a b"@example.net"#),
        (r#""\a\ b"@example.net"#, r#""\a\ b"@example.net"#),
        (r#""plain"@example.net"#, r#""plain"@example.net"#),
        (r#""<@>, \"x\""@example.net"#, r#""<@>, \"x\""@example.net"#),
        ("User+Tag@example.net", "User+Tag@example.net"),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[IPv6:2001:DB8::1]", "a@[IPv6:2001:db8::1]"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"),
        ("PostMaster", "PostMaster"),
    ] {
        assert_eq!(to(&format!("RCPT TO:<{path}>")), kept);
    }
    for path in [
        "a@[192.0.2.256]",
        "a@[192.0.2.1",
        "a@192.0.2.1]",
        "a@[2001:db8::1]",
        "a@[IPv6:192.0.2.1]",
        "a@[IPv6:2001:db8::1::2]",
        "a@[x-tag:thing]",
        r#""a"b@example.net"#,
        r#""a@example.net"#,
        r#""\"@example.net"#,
        "a@-b.example",
        ".a@b.example",
        "a..b@b.example",
        "a.@b.example",
    ] {
        assert_eq!(&bad(format!("RCPT TO:<{path}>"))[..3], "501", "{path}");
    }
}

#[test]
fn forward_paths_are_read_and_postmaster_needs_no_domain() {
    assert_eq!(rcpt_of("RCPT TO:<PostMaster>").to, To::Postmaster("PostMaster".into()));
    let to = rcpt_of("rcpt to:<a@b.example>").to;
    assert_eq!(to, To::Mailbox(Mailbox::parse("a@b.example").unwrap()));
    for (line, reply) in [
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<a>", "554 5.1.2"),
        ("RCPT TO:<a@b>", "554 5.1.2"),
        ("RCPT TO:<a@b..c>", "501 5.1.3"),
        ("RCPT TO:<a b>", "501 5.1.3"),
        ("RCPT FROM:<a@b.c>", "501 5.5.4"),
        ("RCPT TO:<a@b.example> SIZE=1", "555 5.5.4"),
    ] {
        assert_eq!(bad(line), reply, "{line:?}");
    }
}

#[test]
fn addresses_that_are_not_ascii_need_smtputf8() {
    assert_eq!(bad("MAIL FROM:<grüße@example.org>"), "553 5.6.7");
    assert_eq!(bad("MAIL FROM:<a@bücher.example>"), "553 5.6.7");
    let mail = mail_of("MAIL FROM:<grüße@bücher.example> SMTPUTF8");
    assert_eq!(mail.path.to_string(), "<grüße@xn--bcher-kva.example>");
    assert!(rcpt_of("RCPT TO:<grüße@example.org>").utf8);
    assert!(!rcpt_of("RCPT TO:<a@example.org>").utf8);
    // The limit counts octets.
    assert_eq!(bad(format!("MAIL FROM:<{}@b.example> SMTPUTF8", "ü".repeat(33))), "501 5.1.7");
}

#[test]
fn mail_parameters_are_read_in_any_case_and_order() {
    let mail = mail_of(
        "MAIL FROM:<a@b.example> size=12345 Body=8bitmime RET=hdrs ENVID=QQ+2B1 AUTH=e+3Dmc2@b.example \
         REQUIRETLS SMTPUTF8",
    );
    assert_eq!(mail.size, Some(12345));
    assert_eq!(mail.body, Some(BodyType::EightBitMime));
    assert_eq!(mail.ret, Some(Ret::Headers));
    assert_eq!(mail.envid.as_deref(), Some("QQ+2B1"));
    assert!(mail.auth && mail.require_tls && mail.smtputf8);
    assert_eq!(mail_of("MAIL FROM:<> SIZE=99999999999999999999").size, Some(u64::MAX));
    assert!(mail_of("MAIL FROM:<> AUTH=<>").auth);
    assert_eq!(mail_of("MAIL FROM:<> RET=FULL").ret, Some(Ret::Full));
    assert_eq!(mail_of(&format!("MAIL FROM:<> ENVID={}", "x".repeat(100))).envid.unwrap().len(), 100);
    for (parameters, reply) in [
        ("SIZE", "501 5.5.4"),
        ("SIZE=", "501 5.5.4"),
        ("SIZE=1x", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=1 SIZE=1", "501 5.5.4"),
        ("SIZE=123456789012345678901", "501 5.5.4"),
        ("BODY=BINARYMIME", "501 5.5.4"),
        ("RET=SOME", "501 5.5.4"),
        ("ENVID=a+0Ab", "501 5.5.4"),
        ("ENVID=a+zz", "501 5.5.4"),
        ("ENVID=a+2b", "501 5.5.4"),
        ("ENVID=a=b", "501 5.5.4"),
        ("AUTH=a+", "501 5.5.4"),
        ("AUTH=a AUTH=b", "501 5.5.4"),
        ("SMTPUTF8=1", "501 5.5.4"),
        ("=x", "501 5.5.4"),
        ("XFOO=1", "555 5.5.4"),
        ("NOTIFY=NEVER", "555 5.5.4"),
    ] {
        assert_eq!(bad(format!("MAIL FROM:<> {parameters}")), reply, "{parameters}");
    }
    assert_eq!(bad(format!("MAIL FROM:<> ENVID={}", "x".repeat(101))), "501 5.5.4");
}

#[test]
fn rcpt_parameters_are_read_and_never_stands_alone() {
    let rcpt = rcpt_of("RCPT TO:<a@b.example> NOTIFY=success,Failure,DELAY ORCPT=rfc822;A+2Bb@B.example");
    let all = NotifyWhen { success: true, failure: true, delay: true };
    assert_eq!(rcpt.notify, Some(Notify::When(all)));
    assert_eq!(rcpt.orcpt.as_deref(), Some("rfc822;A+2Bb@B.example"));
    assert_eq!(rcpt_of("RCPT TO:<a@b.example> NOTIFY=never").notify, Some(Notify::Never));
    assert!(rcpt_of("RCPT TO:<a@b.example> ORCPT=utf-8;gr\\x{FC}e@b.example").orcpt.is_some());
    assert!(rcpt_of("RCPT TO:<ü@b.example> ORCPT=utf-8;ü@b.example").orcpt.is_some());
    let longest = format!("RCPT TO:<a@b.example> ORCPT=rfc822;{}", "x".repeat(493));
    assert_eq!(rcpt_of(&longest).orcpt.unwrap().len(), 500);
    for parameters in [
        "NOTIFY=NEVER,DELAY",
        "NOTIFY=SOMETIMES",
        "NOTIFY=",
        "NOTIFY=DELAY,",
        "NOTIFY=DELAY NOTIFY=DELAY",
        "ORCPT=a@b.example",
        "ORCPT=;a@b.example",
        "ORCPT=rfc822;",
        "ORCPT=rfc822;a+0D+0Ab",
        "ORCPT=rfc822;a+00b",
        "ORCPT=rfc822;ü@b.example",
    ] {
        assert_eq!(bad(format!("RCPT TO:<a@b.example> {parameters}")), "501 5.5.4", "{parameters}");
    }
    assert_eq!(bad(format!("{longest}x")), "501 5.5.4");
}

#[test]
fn xtext_is_exact() {
    assert_eq!(xtext_encode(b"a+b=c d\n"), "a+2Bb+3Dc+20d+0A");
    assert_eq!(xtext_decode("a+2Bb+3Dc").unwrap(), b"a+b=c");
    for text in ["+", "+2", "+2b", "+GG", "a b", "a=b", "ü"] {
        assert_eq!(xtext_decode(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn xtext_round_trips(octets in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(xtext_decode(&xtext_encode(&octets)).unwrap(), octets);
    }

    #[test]
    fn no_line_panics_and_no_field_holds_a_line_break(
        verb in prop_oneof![Just("MAIL FROM:<"), Just("RCPT TO:<"), Just("EHLO "), Just("AUTH "), Just("")],
        line in prop::collection::vec(any::<u8>(), 0..80)
    ) {
        let line = [verb.as_bytes(), &line].concat();
        match parse(&line) {
            Ok(command) => {
                let shown = format!("{command:?}");
                prop_assert!(!shown.contains("\\r") && !shown.contains("\\n"), "{}", shown);
            }
            Err(error) => prop_assert!(!error.reply().to_string().contains(['\r', '\n', '\0'])),
        }
    }

    #[test]
    fn no_parameter_list_panics(text in "[ A-Z0-9=;,+<>a-zü-]{0,60}") {
        let _ = parse(format!("MAIL FROM:<a@b.example> {text}").as_bytes());
        let _ = parse(format!("RCPT TO:<a@b.example> {text}").as_bytes());
    }
}

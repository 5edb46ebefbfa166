//! Exchanges line by line, and what is offered when.

use super::super::users::tests::cheap_hash;
use super::super::users::{Users, scram_password};
use super::*;

fn credentials(name: &str, password: &str) -> Step {
    Step::Credentials(Credentials { name: name.into(), password: password.into() })
}

fn begin(mechanism: Mechanism, initial: Option<&str>) -> Step {
    let book = Book::default();
    start(&Terms { chosen: &[], book: &book, binding: None, certified: None }, mechanism, initial)
}

fn plain(initial: Option<&str>) -> Step {
    begin(Mechanism::Plain, initial)
}

fn login(initial: Option<&str>) -> Step {
    begin(Mechanism::Login, initial)
}

#[test]
fn plain_takes_an_initial_response_or_asks_for_it() {
    // NUL tim NUL tanstaaftanstaaf, from RFC 4616 §4.
    let message = "AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
    let want = credentials("tim", "tanstaaftanstaaf");
    assert_eq!(plain(Some(message)), want);
    assert_eq!(plain(None), Step::Challenge(String::new(), Exchange::Plain));
    assert_eq!(Exchange::Plain.respond(message.as_bytes()), want);
    let same = STANDARD.encode("tim\0tim\0x");
    assert_eq!(plain(Some(&same)), credentials("tim", "x"));
}

#[test]
fn login_asks_twice_and_takes_the_name_at_once() {
    let challenge = |step: Step| match step {
        Step::Challenge(text, exchange) => (text, exchange),
        other => panic!("{other:?}"),
    };
    let (asked, exchange) = challenge(login(None));
    assert_eq!(asked, "VXNlcm5hbWU6");
    let (asked, exchange) = challenge(exchange.respond(b"dGlt"));
    assert_eq!(asked, "UGFzc3dvcmQ6");
    assert_eq!(exchange.respond(b"cHc="), credentials("tim", "pw"));
    assert_eq!(challenge(login(Some("dGlt"))).0, "UGFzc3dvcmQ6");
}

#[test]
fn external_is_for_the_name_of_the_certificate() {
    let book = Book::default();
    let terms = Terms { chosen: &[], book: &book, binding: None, certified: Some("app") };
    let (same, other) = (STANDARD.encode("app"), STANDARD.encode("root"));
    let external = |initial| start(&terms, choose(&terms, "EXTERNAL").unwrap(), initial);
    assert_eq!(external(Some("=")), Step::Proven("app".into()));
    assert_eq!(external(None), Step::Challenge(String::new(), Exchange::External("app".into())));
    assert_eq!(Exchange::External("app".into()).respond(b""), Step::Proven("app".into()));
    assert_eq!(external(Some(&same)), Step::Proven("app".into()));
    assert_eq!(external(Some(&other)), Step::Failed(SaslError::Identity));
}

#[test]
fn what_is_no_exchange_fails_with_its_reply() {
    let bad = |step: Step, error: SaslError, code: &str| {
        assert_eq!(step, Step::Failed(error));
        assert!(error.reply().to_string().starts_with(code), "{error:?}");
    };
    bad(plain(Some("!!!")), SaslError::Base64, "501 5.5.2");
    bad(Exchange::Plain.respond(b"AHRpbQ"), SaslError::Base64, "501 5.5.2");
    bad(Exchange::Plain.respond(b"*"), SaslError::Cancelled, "501 5.7.0");
    bad(plain(Some("=")), SaslError::Message, "501 5.5.2");
    for message in ["x", "\0x", "a\0b\0c\0d", "other\0tim\0pw", "\0\0pw", "\0a\nb\0pw"] {
        bad(plain(Some(&STANDARD.encode(message))), SaslError::Message, "501");
    }
    bad(plain(Some(&STANDARD.encode(b"\0\xff\0pw"))), SaslError::Message, "501");
    bad(login(Some("=")), SaslError::Message, "501");
    bad(begin(Mechanism::Scram, Some("=")), SaslError::Message, "501");
    bad(
        begin(Mechanism::Scram, Some(&STANDARD.encode("p=tls-exporter,,n=x,r=x"))),
        SaslError::BindingType,
        "535",
    );
    bad(begin(Mechanism::ScramPlus, None), SaslError::Mechanism, "504 5.5.4");
    bad(Exchange::ScramEnd("tim".into()).respond(b"eA=="), SaslError::Message, "501");
    assert_eq!(Exchange::ScramEnd("tim".into()).respond(b""), Step::Proven("tim".into()));
    let long = STANDARD.encode(format!("n,,n={},r=x", "x".repeat(1025)));
    bad(begin(Mechanism::Scram, Some(&long)), SaslError::Message, "501");
}

#[test]
fn what_is_offered_is_what_can_be_used() {
    use Mechanism::{External, Plain, Scram, ScramPlus};
    let hashed = Users::parse(&format!("a:{}", cheap_hash("x"))).unwrap().book();
    let scram = Users::parse(&format!("a:{}", scram_password("x"))).unwrap().book();
    let mixed = format!("a:{}\nb:{}", scram_password("x"), cheap_hash("x"));
    let mixed = Users::parse(&mixed).unwrap().book();
    let nobody = Book::default();
    let bound = Some([0; 32]);
    for (chosen, book, binding, certified, want) in [
        (&[][..], &*hashed, bound, None, "PLAIN LOGIN"),
        (&[], &scram, None, None, "SCRAM-SHA-256 PLAIN LOGIN"),
        (&[], &scram, bound, None, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"),
        (&[], &scram, bound, Some("a"), "EXTERNAL SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"),
        // A client of b's that knows SCRAM would try nothing else.
        (&[], &mixed, bound, None, "PLAIN LOGIN"),
        (&[Scram, Plain], &mixed, bound, None, "SCRAM-SHA-256 PLAIN"),
        (&[ScramPlus, External], &scram, bound, None, "SCRAM-SHA-256-PLUS"),
        (&[ScramPlus, External], &scram, None, Some("a"), "EXTERNAL"),
        (&[Scram], &hashed, bound, None, ""),
        (&[], &nobody, bound, None, ""),
        (&[], &nobody, bound, Some("a"), "EXTERNAL"),
    ] {
        assert_eq!(Terms { chosen, book, binding, certified }.names(), want, "{chosen:?}");
    }
    let terms = Terms { chosen: &[Scram], book: &scram, binding: bound, certified: None };
    for (name, want) in [
        ("SCRAM-SHA-256", Ok(Scram)),
        ("PLAIN", Err(SaslError::Weak)),
        ("SCRAM-SHA-256-PLUS", Err(SaslError::Mechanism)),
        ("EXTERNAL", Err(SaslError::Mechanism)),
        ("CRAM-MD5", Err(SaslError::Mechanism)),
    ] {
        assert_eq!(choose(&terms, name), want, "{name}");
    }
    // Where -PLUS is offered, a client that did not see it was deceived.
    let all = Terms { chosen: &[], ..terms };
    let deceived = STANDARD.encode("y,,n=a,r=x");
    assert_eq!(start(&all, Scram, Some(&deceived)), Step::Failed(SaslError::Downgrade));
    assert!(matches!(start(&terms, Scram, Some(&deceived)), Step::ScramFirst(_)));
}

#[test]
fn a_password_is_never_shown() {
    let Step::Credentials(shown) = credentials("tim", "secret") else { panic!() };
    assert!(!format!("{shown:?}").contains("secret"));
}

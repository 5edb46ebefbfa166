//! Who may submit by a certificate, as which sender, and how much.

use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::{Setting, Talk};
use crate::net::tls::ClientCertificate;
use crate::submission::{
    CertificateUser, Certificates, ClientCertificates, ListenerAuth, Rule, Senders, Users,
};

type Identity = rcgen::CertifiedKey<rcgen::KeyPair>;

fn made(name: &str) -> Identity {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}

fn listed() -> &'static Identity {
    static LISTED: OnceLock<Identity> = OnceLock::new();
    LISTED.get_or_init(|| made("app.example"))
}

fn stranger() -> &'static Identity {
    static STRANGER: OnceLock<Identity> = OnceLock::new();
    STRANGER.get_or_init(|| made("stranger.example"))
}

/// A listener with STARTTLS that asks for certificates, and lists one, of `app`.
fn asking(auth: ListenerAuth, wanted: ClientCertificates) -> Setting {
    let mut setting = Setting::submission();
    setting.listener.auth = auth;
    setting.listener.client_certificates = wanted;
    let sha256 = ClientCertificate::read(listed().cert.der()).unwrap().sha256;
    let sha256: String = sha256.iter().map(|octet| format!("{octet:02x}")).collect();
    let users = vec![CertificateUser {
        name: "app".into(),
        sha256: vec![sha256.parse().unwrap()],
        subject_names: Vec::new(),
    }];
    setting.options.certificates = Arc::new(Certificates { authorities: None, users });
    setting
}

async fn secured(setting: &Setting) -> (Talk, String) {
    let mut talk = setting.greeted().await.starttls().await;
    let hello = talk.ask("EHLO client.example", "250").await;
    (talk, hello)
}

const MAIL: &str = "MAIL FROM:<a@example.com>";

#[tokio::test]
async fn a_listed_certificate_submits_without_auth() {
    for auth in [ListenerAuth::None, ListenerAuth::Optional] {
        let mut setting = asking(auth, ClientCertificates::Optional);
        setting.identity = Some(listed());
        let (mut talk, hello) = secured(&setting).await;
        assert_eq!(hello.contains("250-AUTH EXTERNAL "), auth == ListenerAuth::Optional, "{hello}");
        talk.message("Subject: x\r\n\r\ny", "250").await;
        let content = setting.queue.last().1;
        // RFC 3848: "A" is for AUTH.
        assert!(content.contains(" with ESMTPS id ") && content.contains("Message-ID: "), "{content}");
        setting.identity = Some(stranger());
        let (mut talk, hello) = secured(&setting).await;
        assert!(!hello.contains("EXTERNAL"), "{hello}");
        let refused = talk.ask(MAIL, "5").await;
        if auth == ListenerAuth::None {
            assert!(refused.starts_with("554 5.7.1") && refused.contains("SHA-256 is "), "{refused}");
        } else {
            assert!(refused.starts_with("530 5.7.0"), "{refused}");
        }
        setting.identity = None;
        secured(&setting).await.0.ask(MAIL, "5").await;
    }
}

#[tokio::test]
async fn where_auth_is_required_a_certificate_says_external() {
    let mut setting = asking(ListenerAuth::Required, ClientCertificates::Optional);
    setting.identity = Some(listed());
    let (mut talk, hello) = secured(&setting).await;
    assert!(hello.contains("250-AUTH EXTERNAL PLAIN LOGIN\r\n"), "{hello}");
    talk.ask(MAIL, "530 5.7.0").await;
    talk.ask(&format!("AUTH EXTERNAL {}", STANDARD.encode("alice")), "535 5.7.8").await;
    assert_eq!(talk.ask("AUTH EXTERNAL", "334 ").await, "334 \r\n");
    talk.ask("", "235 2.7.0").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    assert!(setting.queue.last().1.contains(" with ESMTPSA id "));
    let (mut talk, _) = secured(&setting).await;
    talk.ask("AUTH EXTERNAL =", "235 2.7.0").await;
    setting.identity = Some(stranger());
    secured(&setting).await.0.ask("AUTH EXTERNAL =", "504 5.5.4").await;
}

#[tokio::test]
async fn where_a_certificate_is_required_nothing_else_will_do() {
    let mut setting = asking(ListenerAuth::Optional, ClientCertificates::Required);
    setting.peer = "192.0.2.9:4711";
    let good = STANDARD.encode("\0alice\0secret");
    for identity in [None, Some(stranger())] {
        setting.identity = identity;
        let mut talk = setting.greeted().await;
        talk.ask(MAIL, "530 5.7.0").await;
        let mut talk = talk.starttls().await;
        let hello = talk.ask("EHLO client.example", "250").await;
        assert!(!hello.contains("AUTH"), "{hello}");
        talk.ask(&format!("AUTH PLAIN {good}"), "535 5.7.8").await;
        talk.ask(MAIL, "554 5.7.1").await;
    }
    setting.identity = Some(listed());
    let (mut talk, _) = secured(&setting).await;
    talk.ask(MAIL, "250").await;
    talk.ask("RSET", "250").await;
    talk.ask(&format!("AUTH PLAIN {good}"), "235").await;
}

#[tokio::test]
async fn in_both_versions_of_tls_and_never_where_none_is_listed() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut setting = asking(ListenerAuth::None, ClientCertificates::Optional);
        setting.identity = Some(listed());
        let mut talk = setting.greeted().await;
        talk.ask("STARTTLS", "220").await;
        let mut talk = talk.handshake_by(&[version]).await;
        talk.ask("EHLO client.example", "250").await;
        talk.ask(MAIL, "250").await;
        setting.options.certificates = Arc::default();
        let (mut talk, _) = secured(&setting).await;
        let refused = talk.ask(MAIL, "554 5.7.1").await;
        assert!(!refused.contains("certificate"), "it was not asked for: {refused}");
    }
}

async fn logged_in(setting: &Setting) -> Talk {
    let (mut talk, _) = secured(setting).await;
    talk.ask(&format!("AUTH PLAIN {}", STANDARD.encode("\0alice\0secret")), "235").await;
    talk
}

fn senders(list: &[&str]) -> Senders {
    Senders(list.iter().map(|text| text.parse().unwrap()).collect())
}

#[tokio::test]
async fn a_user_sends_as_who_is_allowed() {
    let mut setting = Setting::submission();
    let rule = Rule { senders: senders(&["alice@example.com"]), check_from: true, ..Rule::default() };
    setting.options.rules.insert("alice", rule);
    let mut talk = logged_in(&setting).await;
    for (path, reply) in [
        ("alice@example.com", "250"),
        ("bob@example.com", "550 5.7.1 alice may not send as <bob@example.com>; allowed: alice@example.com"),
        ("", "550 5.7.1 alice may not send as <>"),
    ] {
        talk.ask(&format!("MAIL FROM:<{path}>"), reply).await;
        talk.ask("RSET", "250").await;
    }
    for (content, reply) in [
        ("From: <alice@example.com>\r\n\r\nx\r\n.", "250"),
        ("From: <bob@example.com>\r\n\r\nx\r\n.", "550 5.7.1 From may not be <bob@example.com>"),
        ("Subject: x\r\n\r\nx\r\n.", "550 5.7.1"),
    ] {
        talk.ask("MAIL FROM:<alice@example.com>", "250").await;
        talk.ask("RCPT TO:<b@example.net>", "250").await;
        talk.ask("DATA", "354").await;
        talk.ask(content, reply).await;
    }
    assert_eq!(setting.queue.count(), 1);

    let mut setting = Setting::trusted();
    setting.listener.rule.senders = senders(&["example.com", "<>"]);
    let mut talk = setting.greeted().await;
    for (path, reply) in [("a@example.com", "250"), ("", "250"), ("a@example.net", "550 5.7.1 your network")]
    {
        talk.ask(&format!("MAIL FROM:<{path}>"), reply).await;
        talk.ask("RSET", "250").await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_and_recipients_an_hour_are_limited_and_come_back() {
    let mut setting = Setting::submission();
    let rule = Rule { messages_per_hour: 2, recipients_per_hour: 3, ..Rule::default() };
    setting.options.rules.insert("alice", rule);
    let mut talk = logged_in(&setting).await;
    // What comes to nothing does not count.
    for _ in 0..5 {
        talk.ask(MAIL, "250").await;
        talk.ask("RCPT TO:<b@example.net>", "250").await;
        talk.ask("RSET", "250").await;
    }
    talk.message("Subject: x\r\n\r\ny", "250").await;
    // A second connection is the same user.
    let mut talk = logged_in(&setting).await;
    talk.ask(MAIL, "250").await;
    talk.ask("RCPT TO:<b@example.net>", "250").await;
    talk.ask("RCPT TO:<c@example.net>", "250").await;
    talk.ask("RCPT TO:<d@example.net>", "450 4.7.1 alice may submit 3 recipients an hour").await;
    talk.ask("DATA", "354").await;
    talk.ask("x\r\n.", "250").await;
    talk.ask(MAIL, "450 4.7.1 alice may submit 2 messages an hour, try again in ").await;
    // Others are not concerned; time is on everybody's side.
    let mut trusted = Setting::trusted();
    trusted.quotas = setting.quotas.clone();
    trusted.greeted().await.message("Subject: x\r\n\r\ny", "250").await;
    drop(talk);
    tokio::time::sleep(std::time::Duration::from_secs(3900)).await;
    logged_in(&setting).await.message("Subject: x\r\n\r\ny", "250").await;
}

#[tokio::test]
async fn a_trusted_network_has_limits_of_its_own() {
    let mut setting = Setting::trusted();
    setting.listener.rule = Rule { messages_per_hour: 1, message_size: 1000, ..Rule::default() };
    let mut talk = setting.connect();
    talk.expect("220").await;
    let hello = talk.ask("EHLO client.example", "250").await;
    assert!(hello.ends_with("250 SIZE 1000\r\n"), "{hello}");
    talk.ask("MAIL FROM:<a@example.com> SIZE=1001", "552 5.3.4").await;
    talk.message("x".repeat(900), "250").await;
    talk.ask(MAIL, "450 4.7.1 your network may submit 1 messages an hour").await;
    setting.peer = "192.0.2.10:4711";
    let mut talk = setting.greeted().await;
    talk.message("x\r\n".repeat(400), "552 5.3.4").await;
    talk.message("x", "250").await;
}

#[tokio::test]
async fn connections_of_a_user_are_limited() {
    let mut setting = Setting::submission();
    setting.options.rules.default.connections = 1;
    let first = logged_in(&setting).await;
    let (mut second, _) = secured(&setting).await;
    let good = STANDARD.encode("\0alice\0secret");
    second.ask(&format!("AUTH PLAIN {good}"), "454 4.7.0 alice has 1 connections already").await;
    let mut first = first;
    first.ask("QUIT", "221").await;
    first.closed().await;
    second.ask(&format!("AUTH PLAIN {good}"), "235").await;
    // A certificate without AUTH counts from its first MAIL on.
    let mut setting = asking(ListenerAuth::None, ClientCertificates::Optional);
    setting.options.rules.default.connections = 1;
    setting.identity = Some(listed());
    let (mut first, _) = secured(&setting).await;
    let (mut second, _) = secured(&setting).await;
    first.ask(MAIL, "250").await;
    second.ask(MAIL, "450 4.7.1 app has 1 connections already").await;
}

#[tokio::test]
async fn a_user_who_is_gone_from_the_file_submits_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let hash = crate::submission::users::tests::cheap_hash("secret");
    std::fs::write(&file, format!("alice:{hash}\n")).unwrap();
    let mut setting = Setting::submission();
    setting.options.users = Users::load(&file).unwrap();
    let mut talk = logged_in(&setting).await;
    talk.ask(MAIL, "250").await;
    talk.ask("RSET", "250").await;
    std::fs::write(&file, format!("bobby:{hash}\n# more\n")).unwrap();
    setting.options.users.look_twice();
    talk.ask(MAIL, "530 5.7.0 your login is not valid any more").await;
}

//! AUTH: vectors, order, limits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::{Setting, Talk};
use crate::submission::scram::answer;
use crate::submission::users::tests::cheap_hash;
use crate::submission::{Mechanism, Users, scram_password};

fn clear() -> Setting {
    let mut setting = Setting::submission();
    setting.listener.allow_plaintext_auth = true;
    setting
}

async fn secure(setting: &Setting) -> Talk {
    let mut talk = setting.greeted().await.starttls().await;
    talk.ask("EHLO client.example", "250").await;
    talk
}

#[tokio::test]
async fn plain_and_login_open_the_way() {
    let setting = Setting::submission();
    let good = STANDARD.encode("\0alice\0secret");
    let mut talk = secure(&setting).await;
    talk.ask("MAIL FROM:<a@example.com>", "530 5.7.0").await;
    talk.ask(&format!("AUTH PLAIN {good}"), "235 2.7.0").await;
    talk.ask(&format!("AUTH PLAIN {good}"), "503 5.5.1").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;

    let mut talk = secure(&setting).await;
    assert_eq!(talk.ask("AUTH plain", "334").await, "334 \r\n");
    talk.ask(&good, "235 2.7.0").await;

    let mut talk = secure(&setting).await;
    assert_eq!(talk.ask("AUTH LOGIN", "334").await, "334 VXNlcm5hbWU6\r\n");
    assert_eq!(talk.ask("YWxpY2U=", "334").await, "334 UGFzc3dvcmQ6\r\n");
    talk.ask("c2VjcmV0", "235 2.7.0").await;

    let mut talk = secure(&setting).await;
    talk.ask("AUTH LOGIN YWxpY2U=", "334 UGFzc3dvcmQ6").await;
    talk.ask("c2VjcmV0", "235 2.7.0").await;
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_words() {
    let setting = clear();
    let mut talk = setting.greeted().await;
    let wrong = talk.ask(&format!("AUTH PLAIN {}", STANDARD.encode("\0alice\0x")), "535 5.7.8").await;
    let unknown = talk.ask(&format!("AUTH PLAIN {}", STANDARD.encode("\0bob\0secret")), "535 5.7.8").await;
    assert_eq!(wrong, unknown);
    talk.ask("MAIL FROM:<a@example.com>", "530").await;
}

#[tokio::test]
async fn every_wrong_turn_has_its_reply_and_the_session_goes_on() {
    let setting = clear();
    let mut talk = setting.connect();
    talk.expect("220").await;
    talk.ask("AUTH PLAIN =", "503 5.5.1").await;
    talk.ask("EHLO client.example", "250").await;
    talk.ask("AUTH CRAM-MD5", "504 5.5.4").await;
    talk.ask("AUTH PLAIN !", "501 5.5.2").await;
    talk.ask("AUTH PLAIN =", "501 5.5.2").await;
    talk.ask("AUTH PLAIN", "334").await;
    talk.ask("*", "501 5.7.0").await;
    talk.ask("AUTH LOGIN", "334").await;
    talk.ask("not base64", "501 5.5.2").await;
    talk.ask("NOOP", "250").await;
}

#[tokio::test]
async fn auth_is_refused_where_it_is_not_offered_and_in_a_transaction() {
    let mut talk = Setting::submission().greeted().await;
    talk.ask("AUTH PLAIN =", "538 5.7.11").await;
    let mut setting = Setting::trusted();
    let mut talk = setting.greeted().await;
    talk.ask("AUTH PLAIN =", "502 5.5.1").await;
    setting.listener.auth = crate::submission::ListenerAuth::Optional;
    setting.listener.allow_plaintext_auth = true;
    let mut talk = setting.greeted().await;
    talk.ask("MAIL FROM:<a@example.com>", "250").await;
    talk.ask("AUTH PLAIN =", "503 5.5.1").await;
    let mut talk = setting.connect();
    talk.expect("220").await;
    talk.ask("HELO client.example", "250").await;
    talk.ask("AUTH PLAIN =", "503 5.5.1").await;
}

#[tokio::test]
async fn an_auth_line_may_have_12288_octets() {
    let setting = clear();
    let mut talk = setting.greeted().await;
    // Valid base64 of the right length, and no message of PLAIN.
    let line = "A".repeat(12_288 - 2);
    talk.ask("AUTH PLAIN", "334").await;
    talk.ask(&line[2..], "501 5.5.2").await;
    talk.ask("AUTH PLAIN", "334").await;
    talk.ask(&format!("{line}A"), "500 5.5.6").await;
    talk.ask("NOOP", "250").await;
    let command = "AUTH PLAIN ";
    talk.ask(&format!("{command}{}", &line[command.len()..]), "501 5.5.2").await;
    talk.ask(&format!("{command}{}", &line[command.len() - 1..]), "500 5.5.6").await;
    talk.ask("NOOP", "250").await;
}

#[tokio::test]
async fn input_before_a_challenge_is_cut_off() {
    let setting = clear();
    let mut talk = setting.greeted().await;
    talk.send("AUTH LOGIN\r\nYWxpY2U=\r\n").await;
    talk.expect("554 5.5.0").await;
    talk.closed().await;
    let mut talk = setting.greeted().await;
    talk.ask("AUTH LOGIN", "334").await;
    talk.send("YWxpY2U=\r\nc2VjcmV0\r\n").await;
    talk.expect("554 5.5.0").await;
    talk.closed().await;
}

#[tokio::test]
async fn an_address_that_guesses_is_put_off_and_then_disconnected() {
    let setting = clear();
    let mut talk = setting.greeted().await;
    let wrong = format!("AUTH PLAIN {}", STANDARD.encode("\0alice\0x"));
    for _ in 0..5 {
        talk.ask(&wrong, "535 5.7.8").await;
    }
    for _ in 0..4 {
        talk.ask(&wrong, "454 4.7.0").await;
    }
    talk.ask(&wrong, "454 4.7.0").await;
    talk.expect("421 4.7.0").await;
    talk.closed().await;
}

fn with_scram() -> Setting {
    let mut setting = Setting::submission();
    let (hash, scram) = (cheap_hash("secret"), scram_password("secret"));
    setting.options.users = Users::parse(&format!("alice:{hash}\nalice:{scram}")).unwrap();
    setting
}

/// An exchange up to the client's proof; gives what has to be said last, and what the server must say then.
async fn scram(talk: &mut Talk, mechanism: &str, first: &str, binding: &[u8]) -> (String, String) {
    let reply = talk.ask(&format!("AUTH {mechanism} {}", STANDARD.encode(first)), "334 ").await;
    let challenge = STANDARD.decode(reply[4..].trim_end()).unwrap();
    let (last, end) = answer(first, str::from_utf8(&challenge).unwrap(), "secret", binding);
    (STANDARD.encode(last), format!("334 {}\r\n", STANDARD.encode(end)))
}

#[tokio::test]
async fn scram_with_and_without_channel_binding() {
    let setting = with_scram();
    let mut talk = setting.greeted().await.starttls().await;
    let hello = talk.ask("EHLO client.example", "250").await;
    assert!(hello.contains("250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n"), "{hello}");
    let binding = talk.binding.unwrap();
    // A session that is not ours, then one that is.
    let (last, _) = scram(&mut talk, "SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=alice,r=x", &[0; 32]).await;
    talk.ask(&last, "535 5.7.8").await;
    let (last, end) = scram(&mut talk, "SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=alice,r=x", &binding).await;
    assert_eq!(talk.ask(&last, "334 ").await, end);
    talk.ask("", "235 2.7.0").await;
    talk.message("Subject: x\r\n\r\ny", "250").await;
    assert!(setting.queue.last().1.contains("with ESMTPSA"));

    let mut talk = secure(&setting).await;
    let (last, end) = scram(&mut talk, "SCRAM-SHA-256", "n,,n=alice,r=x", &[]).await;
    talk.ask("MAIL FROM:<a@example.com>", "501 5.5.2").await;
    talk.ask("MAIL FROM:<a@example.com>", "530 5.7.0").await;
    talk.ask(&last, "500 5.5.1").await;
    let (again, other) = scram(&mut talk, "SCRAM-SHA-256", "n,,n=alice,r=x", &[]).await;
    assert!(again != last && other != end, "every exchange has a nonce of its own");
    talk.ask(&last, "535 5.7.8").await;
    talk.ask(&format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode("y,,n=alice,r=x")), "535 5.7.8").await;
    let (last, end) = scram(&mut talk, "SCRAM-SHA-256", "n,,n=alice,r=x", &[]).await;
    assert_eq!(talk.ask(&last, "334 ").await, end);
    talk.ask("*", "501 5.7.0").await;
    talk.ask("MAIL FROM:<a@example.com>", "530 5.7.0").await;
}

#[tokio::test]
async fn in_tls_1_2_nothing_is_bound() {
    let setting = with_scram();
    let mut talk = setting.greeted().await;
    talk.ask("STARTTLS", "220 2.0.0").await;
    let mut talk = talk.handshake_by(&[&rustls::version::TLS12]).await;
    let hello = talk.ask("EHLO client.example", "250").await;
    assert!(hello.contains("250-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n"), "{hello}");
    talk.ask("AUTH SCRAM-SHA-256-PLUS", "504 5.5.4").await;
    // It cannot be said that we hid anything from a client that could have done it.
    let (last, _) = scram(&mut talk, "SCRAM-SHA-256", "y,,n=alice,r=x", &[]).await;
    talk.ask(&last, "334 ").await;
    talk.ask("", "235 2.7.0").await;
}

#[tokio::test]
async fn scram_tells_nobody_which_users_there_are() {
    let setting = with_scram();
    let mut talk = secure(&setting).await;
    let asked = |name: &str| format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode(format!("n,,n={name},r=x")));
    let mut salts = Vec::new();
    for name in ["alice", "bob", "bob"] {
        let reply = talk.ask(&asked(name), "334 ").await;
        let challenge = String::from_utf8(STANDARD.decode(reply[4..].trim_end()).unwrap()).unwrap();
        let (last, _) = answer(&format!("n,,n={name},r=x"), &challenge, "wrong", &[]);
        let refused = talk.ask(&STANDARD.encode(last), "535 5.7.8").await;
        assert_eq!(refused, "535 5.7.8 user name or password wrong\r\n");
        let (_, salt) = challenge.split_once(",s=").unwrap();
        salts.push(salt.to_owned());
    }
    assert!(salts[0] != salts[1] && salts[1] == salts[2], "{salts:?}");
    assert_eq!(salts[0].len(), salts[1].len());
}

#[tokio::test]
async fn every_refusal_of_auth_has_the_code_of_rfc_4954() {
    let good = STANDARD.encode("\0alice\0secret");
    let mut setting = with_scram();
    let mut talk = setting.greeted().await;
    talk.ask(&format!("AUTH PLAIN {good}"), "538 5.7.11").await;
    setting.options.mechanisms = vec![Mechanism::Scram];
    let mut talk = secure(&setting).await;
    talk.ask("AUTH GSSAPI", "504 5.5.4").await;
    talk.ask("AUTH EXTERNAL =", "504 5.5.4").await;
    talk.ask("AUTH SCRAM-SHA-256-PLUS", "504 5.5.4").await;
    talk.ask(&format!("AUTH PLAIN {good}"), "534 5.7.9").await;
    talk.ask("AUTH LOGIN", "534 5.7.9").await;
    setting.options.mechanisms = Vec::new();
    let mut talk = secure(&setting).await;
    for _ in 0..5 {
        talk.ask(&format!("AUTH PLAIN {}", STANDARD.encode("\0alice\0x")), "535 5.7.8").await;
    }
    talk.ask(&format!("AUTH PLAIN {good}"), "454 4.7.0").await;
    let first = STANDARD.encode("n,,n=alice,r=x");
    talk.ask(&format!("AUTH SCRAM-SHA-256 {first}"), "454 4.7.0").await;
}

#[tokio::test]
async fn the_auth_parameter_of_mail_is_read_and_not_believed() {
    let mut talk = Setting::trusted().greeted().await;
    for (parameter, reply) in [
        ("AUTH=<>", "250 2.1.0"),
        ("AUTH=e+3Dmc2@example.com", "250 2.1.0"),
        ("AUTH=a+zz", "501 5.5.4"),
        ("AUTH=", "501 5.5.4"),
    ] {
        talk.ask(&format!("MAIL FROM:<a@example.com> {parameter}"), reply).await;
        talk.ask("RSET", "250").await;
    }
}

//! AUTH: vectors, order, limits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::{Setting, Talk};

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

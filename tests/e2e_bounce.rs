//! What the sender hears when a message cannot be delivered: bounces, and when there is none.

mod support;

use hickory_proto::rr::RecordType;

use support::client::{Client, message, queue_id};
use support::mx::{Arrival, Behaviour};
use support::pki::Kind;
use support::reader::Entity;
use support::world::World;

/// The sender's domain is at host 0, the recipients' at host 1.
async fn world(policies: &[&str], extra: &str) -> World {
    let world = World::start(2, policies, extra).await;
    world.good_domain("home.test", 0);
    world.good_domain("away.test", 1);
    world
}

/// The fields of the delivery status that are about a recipient.
fn status_of(bounce: &Entity, recipient: &str) -> String {
    let status = &bounce.parts[1];
    assert_eq!(status.kind(), "message/delivery-status");
    let about = format!("Final-Recipient: rfc822; {recipient}\r\n");
    let found = status.text().split("\r\n\r\n").find(|group| format!("{group}\r\n").contains(&about));
    found.unwrap_or_else(|| panic!("nothing about {recipient}: {}", status.text())).to_owned()
}

fn bounce_to(arrival: &Arrival, sender: &str) -> Entity {
    assert!(arrival.mail.starts_with("MAIL FROM:<>"), "{}", arrival.mail);
    assert_eq!(arrival.rcpts.len(), 1);
    assert!(arrival.rcpts[0].contains(&format!("<{sender}>")), "{:?}", arrival.rcpts);
    let bounce = Entity::read(&arrival.content);
    assert_eq!(bounce.kind(), "multipart/report");
    assert_eq!(bounce.parameter("report-type").as_deref(), Some("delivery-status"));
    assert_eq!(bounce.field("Auto-Submitted"), Some("auto-replied"));
    assert_eq!(bounce.parts.len(), 3);
    bounce
}

#[tokio::test]
async fn a_refused_recipient_comes_back_to_the_sender_as_a_delivery_status_notification() {
    let world = world(&[], "").await;
    world.farm.hosts[1].adjust(|mx| mx.replies.push(("RCPT".into(), "550 5.1.1 nobody here".into())));
    let content = message("lost");
    world.submit("<a@home.test> ENVID=env1", &["<b@away.test> ORCPT=rfc822;c@first.test"], &content).await;
    let arrival = world.arrivals(0, 1).await.remove(0);
    let bounce = bounce_to(&arrival, "a@home.test");
    let status = status_of(&bounce, "b@away.test");
    for line in [
        "Original-Recipient: rfc822; c@first.test",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.away.test",
        "Diagnostic-Code: smtp; 550 5.1.1 nobody here",
    ] {
        assert!(status.lines().any(|found| found == line), "{line} is missing:\n{status}");
    }
    let about_all = bounce.parts[1].text();
    assert!(about_all.contains("Original-Envelope-Id: env1\r\n"), "{about_all}");
    assert!(about_all.contains("Reporting-MTA: dns; relay.world.test\r\n"), "{about_all}");
    assert!(bounce.parts[0].text().contains("<b@away.test>"));
    assert!(bounce.parts[2].text().ends_with(&content), "{}", bounce.parts[2].text());
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().arrivals.len(), 1, "one bounce and no more");
}

#[tokio::test]
async fn each_recipient_has_its_own_end() {
    let world = world(&[], "").await;
    let refuse = |address: &str, reply: &str| (format!("RCPT TO:<{address}"), reply.to_owned());
    world.farm.hosts[1].adjust(|mx| {
        mx.replies = vec![refuse("bad@", "550 5.1.1 no"), refuse("later@", "450 4.2.1 busy")];
    });
    let to = ["good@away.test", "bad@away.test", "later@away.test"];
    let id = world.submit("a@home.test", &to, &message("three")).await;
    let bounce = bounce_to(&world.arrivals(0, 1).await[0], "a@home.test");
    assert!(status_of(&bounce, "bad@away.test").contains("Status: 5.1.1"));
    assert!(!bounce.parts[1].text().contains("good@away.test"), "{}", bounce.parts[1].text());
    let item = world.deferred(&id).await.remove(0);
    let states: Vec<_> = item["recipients"].as_array().expect("recipients").iter().collect();
    let states: Vec<_> = states.iter().map(|one| one["state"].as_str().unwrap_or_default()).collect();
    assert_eq!(states, ["delivered", "failed", "pending"], "{item}");
    world.farm.hosts[1].adjust(|mx| mx.replies.clear());
    world.daemon.ask(&["queue", "retry", &id]).await;
    let arrivals = world.arrivals(1, 2).await;
    assert_eq!(arrivals[0].rcpts.len(), 1);
    assert_eq!(arrivals[1].rcpts.len(), 1);
    assert!(
        arrivals[0].rcpts[0].contains("good@") && arrivals[1].rcpts[0].contains("later@"),
        "{arrivals:?}"
    );
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().arrivals.len(), 1);
}

#[tokio::test]
async fn what_is_refused_for_now_is_tried_again_by_itself() {
    let world = world(&[], "[delivery]\nretry = [\"1s\"]\n").await;
    world.farm.hosts[1].adjust(|mx| mx.dot = "451 4.3.0 later".into());
    world.submit("a@home.test", &["b@away.test"], &message("patience")).await;
    support::eventually("a second attempt", || async {
        (world.farm.hosts[1].log().arrivals.len() >= 2).then_some(())
    })
    .await;
    world.farm.hosts[1].adjust(|mx| mx.dot = "250 2.0.0 taken".into());
    world.arrivals(1, 1).await;
    world.drained().await;
    assert_eq!(world.farm.hosts[1].accepted().len(), 1);
    assert_eq!(world.farm.hosts[0].log().connections, 0);
}

#[tokio::test]
async fn nobody_is_told_who_asked_not_to_be_or_cannot_be() {
    let world = world(&[], "").await;
    world.farm.hosts[1].behave(Behaviour::clear().answering("RCPT", "550 5.1.1 no"));
    world.submit("a@home.test", &["<b@away.test> NOTIFY=NEVER"], &message("one")).await;
    world.submit("", &["b@away.test"], &message("two")).await;
    world.drained().await;
    let log = world.farm.hosts[1].log();
    assert_eq!(log.commands.iter().filter(|line| line.starts_with("RCPT")).count(), 2, "{:?}", log.commands);
    assert_eq!(world.farm.hosts[0].log().connections, 0);
}

#[tokio::test]
async fn a_bounce_that_cannot_be_delivered_ends_there() {
    let world = world(&[], "").await;
    for host in &world.farm.hosts {
        host.adjust(|mx| mx.replies.push(("RCPT".into(), "550 5.1.1 no".into())));
    }
    world.submit("a@home.test", &["b@away.test"], &message("one")).await;
    world.drained().await;
    let rcpts = |host: usize| {
        let commands = world.farm.hosts[host].log().commands;
        commands.iter().filter(|line| line.starts_with("RCPT")).count()
    };
    assert_eq!((rcpts(0), rcpts(1)), (1, 1));
}

#[tokio::test]
async fn at_the_end_of_its_life_a_message_bounces_and_the_cause_is_named() {
    let extra = "[delivery]\nretry = [\"1h\"]\nlifetime = \"2s\"\n";
    let world = world(&["strict.test"], extra).await;
    world.farm.hosts[1].behave(Behaviour::clear().answering("MAIL", "451 4.3.2 closed for now"));
    world.route("strict.test", 10, "mx.strict.test", 1);
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], 86_400);
    world.submit("a@home.test", &["b@away.test"], &message("one")).await;
    let id = world.submit("a@home.test", &["b@strict.test"], &message("two")).await;
    let asked = world.dns.asked("_mta-sts.strict.test", RecordType::TXT);
    assert!(asked <= 1);
    let _ = id;
    let arrivals = world.arrivals(0, 2).await;
    let about = |domain: &str| {
        let found = arrivals.iter().find(|arrival| arrival.text().contains(&format!("rfc822; b@{domain}")));
        bounce_to(found.expect("a bounce about it"), "a@home.test")
    };
    let late = about("away.test");
    assert!(status_of(&late, "b@away.test").contains("Status: 5.4.7"), "{}", late.parts[1].text());
    assert!(late.parts[0].text().contains("closed for now"), "{}", late.parts[0].text());
    let forbidden = about("strict.test");
    assert!(status_of(&forbidden, "b@strict.test").contains("Status: 5.7."), "{}", forbidden.parts[1].text());
    let words = forbidden.parts[0].text().split_whitespace().collect::<Vec<_>>().join(" ");
    for word in ["mta-sts enforce", "STARTTLS", "mx.strict.test"] {
        assert!(words.contains(word), "{word} is missing: {words}");
    }
    // RFC 8461 §5.1: the record was looked at again before giving up.
    assert!(world.dns.asked("_mta-sts.strict.test", RecordType::TXT) >= 2);
    world.drained().await;
}

#[tokio::test]
async fn a_policy_put_right_before_the_end_of_life_saves_the_message() {
    let extra = "[delivery]\nretry = [\"1h\"]\nlifetime = \"4s\"\n";
    let world = world(&["moved.test"], extra).await;
    world.route("moved.test", 10, "mx.moved.test", 1);
    world.farm.hosts[1].behave(world.secured(&["mx.moved.test"], Kind::Good));
    world.publish("moved.test", "1", "enforce", &["old.moved.test"], 86_400);
    let id = world.submit("a@home.test", &["b@moved.test"], &message("one")).await;
    world.deferred(&id).await;
    world.publish("moved.test", "2", "enforce", &["mx.moved.test"], 86_400);
    assert!(world.arrivals(1, 1).await[0].tls);
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().connections, 0, "no bounce");
}

#[tokio::test]
async fn the_sender_of_a_delayed_message_is_warned_once() {
    let extra = "[delivery]\nretry = [\"1s\"]\ndelay_warning = \"1s\"\n";
    let world = world(&[], extra).await;
    world.farm.hosts[1].adjust(|mx| mx.dot = "451 4.3.0 later".into());
    world.submit("a@home.test", &["b@away.test"], &message("slow")).await;
    let warning = Entity::read(&world.arrivals(0, 1).await[0].content);
    let status = status_of(&warning, "b@away.test");
    assert!(status.contains("Action: delayed") && status.contains("Will-Retry-Until: "), "{status}");
    let tries = world.farm.hosts[1].log().arrivals.len();
    support::eventually("two more attempts", || async {
        (world.farm.hosts[1].log().arrivals.len() >= tries + 2).then_some(())
    })
    .await;
    assert_eq!(world.farm.hosts[0].log().arrivals.len(), 1);
}

#[tokio::test]
async fn log_listing_explanation_warning_and_bounce_say_the_same_sentence() {
    let extra = "[delivery]\nretry = [\"1s\"]\ndelay_warning = \"1s\"\nlifetime = \"4s\"\n";
    let world = world(&["strict.test"], extra).await;
    world.farm.hosts[1].behave(world.secured(&["mx.strict.test"], Kind::Expired));
    world.route("strict.test", 10, "mx.strict.test", 1);
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], 86_400);
    let id = world.submit("a@home.test", &["b@strict.test"], &message("one")).await;
    let item = world.deferred(&id).await.remove(0);
    let result = item["history"][0]["result"].as_str().expect("a sentence").to_owned();
    let sentence = result.strip_prefix("deferred: ").expect("it is deferred").to_owned();
    assert!(sentence.starts_with("4.7.5 host mx.strict.test: certificate has expired"), "{sentence}");
    assert_eq!(item["recipients"][0]["last"], sentence);
    assert!(world.daemon.log().replace('\\', "").contains(&sentence), "{sentence}");
    let explained = world.daemon.json(&["explain", "b@strict.test", "--connect"]).await.remove(0);
    assert_eq!(explained["conclusion"]["text"], sentence, "{explained}");
    let arrivals = world.arrivals(0, 2).await;
    let words = |index: usize| {
        let notice = Entity::read(&arrivals[index].content);
        notice.parts[0].text().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(words(0).contains(&sentence), "{}", words(0));
    let cause = sentence.strip_prefix("4.7.5 ").expect("it has");
    assert!(words(1).contains("5.7.5 delivery time expired") && words(1).contains(cause), "{}", words(1));
    assert!(words(0).contains("What to do: ") && words(1).contains("let them see this message"));
}

#[tokio::test]
async fn a_domain_that_takes_no_mail_and_one_that_is_not_there_bounce_at_once() {
    let world = world(&[], "").await;
    world.dns.mx("null.test", 0, ".");
    world.dns.address("null.test", world.farm.hosts[1].ip);
    let mut client = Client::connect(world.daemon.smarthost).await;
    for domain in ["null.test", "nowhere.test"] {
        queue_id(&client.submit("a@home.test", &[&format!("b@{domain}")], &message(domain)).await);
    }
    let arrivals = world.arrivals(0, 2).await;
    for (domain, status) in [("null.test", "Status: 5.1.10"), ("nowhere.test", "Status: 5.1.2")] {
        let bounce = arrivals
            .iter()
            .map(|arrival| bounce_to(arrival, "a@home.test"))
            .find(|bounce| bounce.parts[1].text().contains(&format!("b@{domain}")))
            .expect("a bounce about it");
        assert!(status_of(&bounce, &format!("b@{domain}")).contains(status), "{}", bounce.parts[1].text());
    }
    assert_eq!(world.farm.hosts[1].log().connections, 0);
}

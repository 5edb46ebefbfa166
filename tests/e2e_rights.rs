//! Who may submit, over real sockets: client certificates, users that change, passwords that nobody sees.

mod support;

use std::fs;
use std::net::SocketAddr;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use support::client::{Client, message, queue_id};
use support::daemon::{HOSTNAME, free_addresses};
use support::eventually;
use support::pki::Kind;
use support::world::World;

async fn world(extra: &str) -> World {
    let world = World::start(1, &[], extra).await;
    world.good_domain("away.test", 0);
    world
}

fn plain(name: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{name}\0{password}"))
}

async fn implicit(world: &World) -> Client {
    Client::connect_tls(world.daemon.submissions, world.pki.root_der(), HOSTNAME).await
}

#[tokio::test]
async fn users_come_and_go_without_a_signal() {
    let world = world("").await;
    let file = world.daemon.path("users");
    let (hash, scram) =
        (stsrelay::submission::hash_password("new"), stsrelay::submission::scram_password("new"));
    fs::write(&file, format!("bob:{hash}\nbob:{scram}\n")).expect("writable");
    eventually("bob to be let in", || async {
        let reply = implicit(&world).await.say(&format!("AUTH PLAIN {}", plain("bob", "new"))).await;
        reply.starts_with("235").then_some(())
    })
    .await;
    let mut client = implicit(&world).await;
    let hello = client.say("EHLO client.world.test").await;
    assert!(hello.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"), "{hello}");
    assert!(client.say(&format!("AUTH PLAIN {}", plain("alice", "secret"))).await.starts_with("535"));
    // A file that cannot be used changes nothing, and is told of.
    fs::write(&file, "bob\n").expect("writable");
    eventually("the file to be refused", || async {
        world.daemon.log().contains("users file cannot be used, the users before stay").then_some(())
    })
    .await;
    let mut client = implicit(&world).await;
    assert!(client.say(&format!("AUTH PLAIN {}", plain("bob", "new"))).await.starts_with("235"));
}

#[tokio::test]
async fn no_password_is_in_the_log_however_much_is_logged() {
    let mut world = world("[log]\nlevel = \"trace\"\n").await;
    let (right, wrong) = ("Tr0ub4dor-and-3", "c0rrect-h0rse");
    let hash = stsrelay::submission::hash_password(right);
    fs::write(world.daemon.path("users"), format!("alice:{hash}\n")).expect("writable");
    eventually("alice to be let in", || async {
        let reply = implicit(&world).await.say(&format!("AUTH PLAIN {}", plain("alice", right))).await;
        reply.starts_with("235").then_some(())
    })
    .await;
    let mut client = implicit(&world).await;
    assert!(client.say(&format!("AUTH PLAIN {}", plain("alice", wrong))).await.starts_with("535"));
    assert!(client.say(&format!("AUTH PLAIN x{}", plain("alice", right))).await.starts_with("501"));
    assert!(client.say(&format!("AUTH PLAIN {} more", plain("alice", right))).await.starts_with("501"));
    assert!(client.say(&format!("AUTH PLAI {}", plain("alice", right))).await.starts_with("504"));
    // The password where a command is expected.
    client.say(&plain("alice", right)).await;
    client.say(right).await;
    for password in [wrong, right] {
        client.say("AUTH LOGIN").await;
        client.say(&STANDARD.encode("alice")).await;
        client.say(&STANDARD.encode(password)).await;
    }
    let mut clear = Client::connect(world.daemon.submission).await;
    assert!(clear.say(&format!("AUTH PLAIN {}", plain("alice", right))).await.starts_with("538"));
    assert_eq!(world.daemon.stop().await, Some(0));
    let log = world.daemon.log();
    assert!(log.contains("authentication failed") && log.contains("TRACE"), "it was logged at all");
    for password in [right, wrong] {
        for shown in [password.to_owned(), STANDARD.encode(password), plain("alice", password)] {
            assert!(!log.contains(&shown), "{shown} is in the log");
        }
    }
}

fn listeners(world: &World, asking: SocketAddr) -> String {
    format!(
        "[[listener]]\nname = \"smarthost\"\nlisten = [\"{}\"]\ntrusted_networks = [\"127.0.0.0/8\"]\n\
         [[listener]]\nname = \"machines\"\nlisten = [\"{asking}\"]\ntls = \"implicit\"\n\
         client_certificates = \"optional\"\n",
        world.daemon.smarthost
    )
}

#[tokio::test]
async fn a_machine_submits_by_its_certificate_until_it_is_taken_off_the_list() {
    let mut world = world("").await;
    let [asking] = free_addresses();
    let leaf = world.pki.leaf(&["machine.world.test"], Kind::Good);
    let sha256: String = digest::digest(&digest::SHA256, &leaf.certificate_der())
        .as_ref()
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect();
    let by_sha256 = format!("[[auth.client_certificate]]\nname = \"machine\"\nsha256 = [\"{sha256}\"]\n");
    let by_name = "[auth]\nclient_ca_file = \"roots.pem\"\n[[auth.client_certificate]]\n\
                   name = \"named\"\nsubject_names = [\"*.world.test\"]\n";
    let nobody =
        "[[auth.client_certificate]]\nname = \"other\"\nsha256 = [\"".to_owned() + &"00".repeat(32) + "\"]\n";
    world.daemon.configure_extra(&(listeners(&world, asking) + &by_sha256));
    world.daemon.restart().await;
    let root = world.pki.root_der();
    let (mut client, hello) = Client::connect_tls_as(asking, root.clone(), HOSTNAME, &leaf).await;
    assert!(!hello.contains("AUTH"), "{hello}");
    queue_id(&client.submit("a@home.test", &["b@away.test"], &message("mine")).await);
    let arrivals = world.arrivals(0, 1).await;
    assert!(arrivals[0].text().contains(" with ESMTPS id "), "{}", arrivals[0].text());
    assert!(world.daemon.log().contains("user=\"machine\"") || world.daemon.log().contains("user=machine"));
    let mut stranger = Client::connect_tls(asking, root.clone(), HOSTNAME).await;
    assert!(stranger.say("MAIL FROM:<a@home.test>").await.starts_with("554 5.7.1"));

    let ask = |extra: String, want: &'static str| {
        world.daemon.configure_extra(&(listeners(&world, asking) + &extra));
        world.daemon.signal("HUP");
        let (world, root, leaf) = (&world, root.clone(), &leaf);
        async move {
            eventually(want, || async {
                let (mut client, _) = Client::connect_tls_as(asking, root.clone(), HOSTNAME, leaf).await;
                let reply = client.say("MAIL FROM:<a@home.test>").await;
                let _ = world;
                reply.starts_with(want).then_some(())
            })
            .await;
        }
    };
    ask(nobody, "554 5.7.1").await;
    ask(by_name.to_owned(), "250").await;
}

#[tokio::test]
async fn what_a_user_may_do_is_configured_and_refusals_name_user_and_message() {
    let rules = "[[auth.user]]\nname = \"alice\"\nsenders = [\"home.test\"]\ncheck_from = true\n\
                 messages_per_hour = 1\n";
    let world = world(rules).await;
    let mut client = implicit(&world).await;
    assert!(client.say(&format!("AUTH PLAIN {}", plain("alice", "secret"))).await.starts_with("235"));
    let refused = client.say("MAIL FROM:<a@elsewhere.test>").await;
    assert!(refused.starts_with("550 5.7.1 alice may not send as <a@elsewhere.test>"), "{refused}");
    let spoofed = message("mine").replace("a@home.test", "a@elsewhere.test");
    let refused = client.submit("a@home.test", &["b@away.test"], &spoofed).await;
    assert!(refused.starts_with("550 5.7.1 From may not be <a@elsewhere.test>"), "{refused}");
    // RFC 4954 §5: whom the client claims the message to be from is not believed, and not passed on.
    let accepted =
        client.submit("<a@home.test> AUTH=root@home.test", &["b@away.test"], &message("mine")).await;
    queue_id(&accepted);
    let limited = client.say("MAIL FROM:<a@home.test>").await;
    assert!(limited.starts_with("450 4.7.1 alice may submit 1 messages an hour"), "{limited}");
    let arrivals = world.arrivals(0, 1).await;
    assert!(!arrivals[0].mail.contains("AUTH="), "{}", arrivals[0].mail);
    let log = world.daemon.log();
    let line = |what: &str| {
        log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log}")).to_owned()
    };
    let (command, content) = (line("command refused"), line("message refused"));
    assert!(command.contains("alice") && command.contains("550 5.7.1"), "{command}");
    assert!(content.contains("alice") && content.contains("queue_id="), "{content}");
}

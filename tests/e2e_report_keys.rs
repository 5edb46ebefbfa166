//! A key for report mail from its making to what DNS says of it: `report keygen`, `config check`, and the
//! daemon's warning.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hickory_proto::rr::RecordType;
use serde_json::Value;

use support::dns::Fault;
use support::world::World;

/// A key in the daemon's folder; gives what keygen said.
async fn key(world: &World, kind: &str, file: &str) -> Value {
    let path = world.daemon.path(file).display().to_string();
    let arguments = ["report", "keygen", "--type", kind, "--domain", "relay.test", "--out", &path, "--json"];
    let said = world.daemon.ask(&arguments).await;
    serde_json::from_str(&said).expect("one object")
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_else(|| panic!("{name}: {object}"))
}

fn publish(world: &World, key: &Value) {
    let strings: Vec<String> = key["strings"]
        .as_array()
        .expect("strings")
        .iter()
        .map(|s| s.as_str().expect("text").to_owned())
        .collect();
    world.dns.remove(text(key, "name"), RecordType::TXT);
    world.dns.txt_strings(text(key, "name"), strings);
}

/// What `config check` warns of.
async fn warnings(world: &World, arguments: &[&str]) -> Vec<String> {
    let lines = world.daemon.json(&[&["config", "check"], arguments].concat()).await;
    lines
        .iter()
        .filter(|line| line["severity"] == "warning")
        .map(|line| {
            let second = text(line, "text").contains("tlsrpt-ed25519._domainkey");
            let key = if second { "tlsrpt.dkim_second_key_file" } else { "tlsrpt.dkim_key_file" };
            assert_eq!(line["key"], key, "{line}");
            text(line, "text").to_owned()
        })
        .collect()
}

#[tokio::test]
async fn keys_are_made_once_for_their_owner_alone_and_compared_with_what_dns_says() {
    let mut world = World::prepare(1, &[], "").await;
    let (rsa, ed) = (key(&world, "rsa", "rsa.pem").await, key(&world, "ed25519", "ed.pem").await);
    let made = fs::metadata(world.daemon.path("rsa.pem")).expect("a file");
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    let before = fs::read(world.daemon.path("rsa.pem")).expect("a file");
    let path = world.daemon.path("rsa.pem").display().to_string();
    let again = world.daemon.cli(&["report", "keygen", "--domain", "relay.test", "--out", &path]).await;
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("never overwritten"));
    assert_eq!(fs::read(world.daemon.path("rsa.pem")).expect("a file"), before);
    assert_eq!(text(&rsa, "name"), "tlsrpt._domainkey.relay.test");
    assert_eq!(text(&ed, "name"), "tlsrpt-ed25519._domainkey.relay.test");

    let place = |file: &str| world.daemon.path(file).display().to_string();
    world.daemon.configure_extra(&format!(
        "[tlsrpt]\nfrom = \"tlsrpt@relay.test\"\ndkim_domain = \"relay.test\"\n\
         dkim_selector = \"tlsrpt\"\ndkim_key_file = \"{}\"\n\
         dkim_second_selector = \"tlsrpt-ed25519\"\ndkim_second_key_file = \"{}\"\n",
        place("rsa.pem"),
        place("ed.pem")
    ));
    for (second, phrase) in [
        ("tlsrpt.dkim_second_selector=tlsrpt".to_owned(), "each key needs a name of its own"),
        (format!("tlsrpt.dkim_second_key_file={}", place("rsa.pem")), "is a key of rsa"),
    ] {
        let checked = world.daemon.cli(&["config", "check", "--set", &second]).await;
        assert_eq!(checked.status.code(), Some(78), "{phrase}");
        assert!(String::from_utf8_lossy(&checked.stderr).contains(phrase), "{phrase}");
    }
    let found = warnings(&world, &[]).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|text| text.contains("no key record")), "{found:?}");
    assert!(found[0].contains(text(&rsa, "txt")), "what to publish: {found:?}");
    assert!(warnings(&world, &["--offline"]).await.is_empty());

    publish(&world, &rsa);
    publish(&world, &ed);
    assert_eq!(warnings(&world, &[]).await, [""; 0]);

    let name = text(&rsa, "name").to_owned();
    for (record, phrase) in [
        (text(&rsa, "txt").replace("p=", "t=y; p="), "test mode"),
        ("v=DKIM1; p=".to_owned(), "revoked"),
        (text(&ed, "txt").to_owned(), "k=ed25519"),
    ] {
        let strings =
            record.as_bytes().chunks(255).map(|s| String::from_utf8_lossy(s).into_owned()).collect();
        world.dns.remove(&name, RecordType::TXT);
        world.dns.txt_strings(&name, strings);
        let found = warnings(&world, &[]).await;
        assert!(found.len() == 1 && found[0].contains(phrase), "{phrase}: {found:?}");
    }
    // The daemon says so as well, and runs.
    world.daemon.start().await;
    support::eventually("the daemon's warning", || async {
        world.daemon.log().contains("k=ed25519").then_some(())
    })
    .await;

    // A name server that says nothing costs some seconds, and is told.
    world.dns.fault(&name, RecordType::TXT, Some(Fault::Silence));
    let began = std::time::Instant::now();
    let found = warnings(&world, &[]).await;
    assert!(found.len() == 1 && found[0].contains("not checked"), "{found:?}");
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

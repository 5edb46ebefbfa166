//! Clients that hand mail to the relay over its real SMTP sessions, and sometimes break off.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use stsrelay::submission::{ListenerOptions, Sessions};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use crate::internet::{GOOD, HOME, LAX, TRAP, root_der};
use crate::sim::{Ask, Message, Sim};

const PIPE_BYTES: usize = 1 << 18;
/// Larger than what the queue keeps in its journal.
const LARGE_BYTES: usize = (1 << 20) + 100_000;
/// A line of every message.
pub const CONTENT: &str = "words between two people";

/// Trusts whoever the relay's certificate is from.
static CONNECTOR: LazyLock<TlsConnector> = LazyLock::new(|| {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
});

/// What a session is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Messages of every kind, as fast as they are taken.
    Mixed,
    /// Within TLS, so that REQUIRETLS may be said.
    Secure,
    /// Messages with little demands before strict ones to the same hosts, seconds apart, so that the
    /// strict ones find their connections open.
    Lax,
}

/// Who is to be written to, and how.
struct Letter {
    ask: Ask,
    recipients: Vec<String>,
    from_null: bool,
    quiet: bool,
    large: bool,
}

/// Sends now and then, until dropped. `often`: mean seconds between two sessions.
pub async fn send_for_ever(
    sim: Arc<Sim>,
    sessions: Arc<Sessions>,
    listeners: Vec<ListenerOptions>,
    often: u64,
) {
    loop {
        sleep(sim.seconds(1, 2 * often)).await;
        let kind = match sim.roll(6) {
            0 => Kind::Secure,
            1 | 2 => Kind::Lax,
            _ => Kind::Mixed,
        };
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let name = if kind == Kind::Secure { "secure" } else { "plain" };
        let listener = listeners.iter().find(|listener| listener.name == name).unwrap().clone();
        let held = Arc::clone(&sessions);
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        tokio::spawn(async move { held.hold(&listener, Box::new(far), peer).await });
        let burst = match kind {
            Kind::Lax => 2 + sim.roll(3),
            _ if sim.once_in(25) => 1 + sim.roll(15),
            _ => 1 + sim.roll(2),
        };
        // How a session ends early is known by what was not acknowledged.
        if kind == Kind::Secure {
            let name = "relay.example".try_into().unwrap();
            if let Ok(stream) = CONNECTOR.connect(name, near).await {
                let _ = session(&sim, stream, burst, kind).await;
            }
        } else {
            let _ = session(&sim, near, burst, kind).await;
        }
    }
}

async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    sim: &Sim,
    stream: S,
    messages: u64,
    kind: Kind,
) -> Option<()> {
    let mut client = Client(BufReader::new(stream));
    client.reply().await?;
    client.ask("EHLO client.example").await?;
    // Two domains with one host, or one domain.
    let pair = sim.pick(&[[LAX, 2], [3, 4], [4, 2], [2, 2], [6, 6], [8, 8], [4, 4]]);
    for nth in 0..messages {
        let id = sim.book().messages.len();
        let letter = match kind {
            Kind::Lax => lax_letter(sim, id, pair[nth as usize % 2], nth),
            _ => letter(sim, id, kind),
        };
        message(sim, &mut client, id, letter).await?;
        if kind == Kind::Lax {
            sleep(sim.seconds(1, 12)).await;
        }
    }
    client.ask("QUIT").await.map(drop)
}

/// The first, third, ... ask for no TLS where their domain is strict.
fn lax_letter(sim: &Sim, id: usize, zone: usize, nth: u64) -> Letter {
    let ask = if nth.is_multiple_of(2) && zone != LAX { Ask::NotRequired } else { Ask::Nothing };
    let name = sim.net().zones[zone].name.clone();
    Letter { ask, recipients: vec![format!("u0.{id}@{name}")], from_null: false, quiet: false, large: false }
}

fn letter(sim: &Sim, id: usize, kind: Kind) -> Letter {
    let recipients = recipients(sim, id);
    let from_null = sim.once_in(25);
    let ask = match kind {
        _ if from_null => Ask::Nothing,
        Kind::Secure if !sim.once_in(3) => Ask::Required,
        _ if sim.once_in(20) => Ask::NotRequired,
        _ => Ask::Nothing,
    };
    Letter { ask, recipients, from_null, quiet: !from_null && sim.once_in(30), large: sim.once_in(150) }
}

/// One message; `None` ends the session.
async fn message<S: AsyncRead + AsyncWrite + Unpin>(
    sim: &Sim,
    client: &mut Client<S>,
    id: usize,
    letter: Letter,
) -> Option<()> {
    let Letter { ask, recipients, from_null, quiet, large } = letter;
    sim.book().messages.push(Message {
        from_null,
        ask,
        recipients: recipients.clone(),
        quiet,
        acknowledged: None,
        deliveries: Vec::new(),
        bounced: Vec::new(),
        warned: 0,
    });
    let home = sim.net().zones[HOME].name.clone();
    let from = if from_null { String::new() } else { format!("s.{id}@{home}") };
    let require = if ask == Ask::Required { " REQUIRETLS" } else { "" };
    if !client.ask(&format!("MAIL FROM:<{from}>{require}")).await?.starts_with("250") {
        sim.book().counts.refused += 1;
        return Some(());
    }
    let notify = if quiet { " NOTIFY=NEVER" } else { "" };
    for recipient in &recipients {
        client.ask(&format!("RCPT TO:<{recipient}>{notify}")).await?;
    }
    if sim.once_in(60) {
        // Goes away in the middle of a transaction.
        return None;
    }
    if !client.ask("DATA").await?.starts_with("354") {
        sim.book().counts.refused += 1;
        return Some(());
    }
    let lenient = if ask == Ask::NotRequired { "TLS-Required: No\r\n" } else { "" };
    let mut content = format!(
        "From: <s.{id}@{home}>\r\n{lenient}X-Sim-Id: {id}\r\nSubject: simulated\r\n\r\n{CONTENT}\r\n"
    );
    if large {
        while content.len() < LARGE_BYTES {
            content
                .push_str("a line of a large message, which is longer than what a journal record holds\r\n");
        }
    }
    client.say(&format!("{content}.\r\n")).await?;
    if sim.once_in(60) {
        // Goes away before the reply: it may or may not have been taken.
        return None;
    }
    let reply = client.reply().await?;
    if sim.is_dead() {
        return None;
    }
    let taken = reply.starts_with("250");
    {
        let now = sim.time.now();
        let mut book = sim.book();
        if taken {
            book.messages[id].acknowledged = Some(now);
            book.unsettled.insert(id);
            book.counts.acknowledged += 1;
            match ask {
                Ask::Nothing => {}
                Ask::Required => book.counts.required += recipients.len() as u64,
                Ask::NotRequired => book.counts.not_required += recipients.len() as u64,
            }
        } else {
            book.counts.refused += 1;
        }
    }
    sim.note(format_args!("message {id} ({ask:?}) for {recipients:?}: {}", &reply[..reply.len().min(3)]));
    Some(())
}

fn recipients(sim: &Sim, id: usize) -> Vec<String> {
    let count = if sim.once_in(5) { 2 + sim.roll(6) } else { 1 };
    let one_domain = sim.once_in(2);
    let net = sim.net();
    let zone = || 1 + sim.roll(TRAP as u64 - 1) as usize;
    let same = zone();
    let mut recipients: Vec<String> = (0..count)
        .map(|n| {
            let zone = if one_domain { same } else { zone() };
            format!("u{n}.{id}@{}", net.zones[zone].name)
        })
        .collect();
    if sim.once_in(40) {
        recipients.push(format!("nobody.{id}@nowhere.example"));
    }
    if sim.once_in(8) {
        recipients.push(format!("g.{id}@{}", net.zones[GOOD].name));
    }
    recipients
}

struct Client<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn say(&mut self, text: &str) -> Option<()> {
        self.0.get_mut().write_all(text.as_bytes()).await.ok()
    }

    /// The last line of a reply; nothing at the end of the connection.
    async fn reply(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            let read = tokio::time::timeout(Duration::from_secs(900), self.0.read_line(&mut line)).await;
            if read.ok()?.ok()? == 0 {
                return None;
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Some(line);
            }
        }
    }

    async fn ask(&mut self, line: &str) -> Option<String> {
        self.say(&format!("{line}\r\n")).await?;
        self.reply().await
    }
}

//! Clients that hand mail to the relay over its real SMTP sessions, and sometimes break off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stsrelay::submission::{ListenerOptions, Sessions};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream};
use tokio::time::sleep;

use crate::internet::{GOOD, HOME};
use crate::sim::{Message, Sim};

const PIPE_BYTES: usize = 1 << 18;
/// Larger than what the queue keeps in its journal.
const LARGE_BYTES: usize = (1 << 20) + 100_000;

/// Sends now and then, until dropped. `often`: mean seconds between two sessions.
pub async fn send_for_ever(sim: Arc<Sim>, sessions: Arc<Sessions>, listener: ListenerOptions, often: u64) {
    loop {
        sleep(sim.seconds(1, 2 * often)).await;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (held, listener) = (Arc::clone(&sessions), listener.clone());
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        tokio::spawn(async move { held.hold(&listener, Box::new(far), peer).await });
        let burst = if sim.once_in(25) { 1 + sim.roll(15) } else { 1 + sim.roll(2) };
        // How a session ends early is known by what was not acknowledged.
        let _ = session(&sim, near, burst).await;
    }
}

async fn session(sim: &Sim, stream: DuplexStream, messages: u64) -> Option<()> {
    let mut client = Client(BufReader::new(stream));
    client.reply().await?;
    client.ask("EHLO client.example").await?;
    for _ in 0..messages {
        message(sim, &mut client).await?;
    }
    client.ask("QUIT").await.map(drop)
}

/// One message; `None` ends the session.
async fn message(sim: &Sim, client: &mut Client<DuplexStream>) -> Option<()> {
    let id = sim.book().messages.len();
    let recipients = recipients(sim, id);
    let from_null = sim.once_in(25);
    let quiet = !from_null && sim.once_in(30);
    let large = sim.once_in(150);
    sim.book().messages.push(Message {
        from_null,
        recipients: recipients.clone(),
        quiet,
        acknowledged: None,
        deliveries: Vec::new(),
        bounced: Vec::new(),
        warned: 0,
    });
    let home = sim.net().zones[HOME].name.clone();
    let from = if from_null { String::new() } else { format!("sender@{home}") };
    if !client.ask(&format!("MAIL FROM:<{from}>")).await?.starts_with("250") {
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
    let mut content =
        format!("From: <sender@{home}>\r\nX-Sim-Id: {id}\r\nSubject: simulated\r\n\r\nline\r\n");
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
            book.counts.acknowledged += 1;
        } else {
            book.counts.refused += 1;
        }
    }
    sim.note(format_args!("message {id} for {recipients:?}: {}", &reply[..reply.len().min(3)]));
    Some(())
}

fn recipients(sim: &Sim, id: usize) -> Vec<String> {
    let count = if sim.once_in(10) { 2 + sim.roll(6) } else { 1 };
    let net = sim.net();
    let mut recipients: Vec<String> = (0..count)
        .map(|n| {
            let zone = 1 + sim.roll(net.zones.len() as u64 - 1) as usize;
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

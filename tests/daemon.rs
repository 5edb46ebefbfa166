//! The real daemon as a process: start, submission, queue by command line, reload, drain, restart.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration: listener on a port of the kernel's choice, a name server that
/// knows nothing, so that what is submitted stays in the queue.
struct Site {
    folder: TempDir,
}

/// Answers every question with SERVFAIL, as long as the test runs.
fn failing_dns() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut message = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut message) {
            if length >= 12 {
                // RFC 1035 §4.1.1: QR = 1, RCODE = 2.
                message[2] |= 0x80;
                message[3] = (message[3] & 0xf0) | 2;
                let _ = socket.send_to(&message[..length], peer);
            }
        }
    });
    address
}

impl Site {
    fn new() -> Self {
        Self::with_dns(failing_dns())
    }

    fn with_dns(dns: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[server]\nhostname = \"relay.example.org\"\ndata_dir = \"var\"\n\
             [[listener]]\nname = \"smarthost\"\nlisten = [\"127.0.0.1:0\"]\ntrusted_networks = [\"127.0.0.0/8\"]\n\
             [dns]\nnameservers = [\"{}\"]\n[admin]\nsocket = \"run/admin.sock\"\n",
            dns
        );
        let site = Self { folder };
        site.write(&text);
        site
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("stsrelay.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stsrelay"));
        command.args(arguments).args(["--config", "stsrelay.toml"]).current_dir(self.path()).env_clear();
        command
    }

    fn stsrelay(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A verb that must succeed with `--json`; its objects.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let output = self.stsrelay(&with_json);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn serve(&self) -> Daemon {
        let notify = UnixDatagram::bind(self.path().join(format!("notify-{}", unused_name()))).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = self
            .command(&["serve"])
            .env("NOTIFY_SOCKET", notify.local_addr().unwrap().as_pathname().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut daemon = Daemon { child, log, notify, address: None };
        let listening = daemon.logged("listening");
        let address = listening.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        daemon.address = Some(address.parse().unwrap());
        daemon.notified("READY=1");
        daemon
    }
}

/// Names for files within one test.
fn unused_name() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running daemon; killed when the test ends before it does.
struct Daemon {
    child: Child,
    log: Receiver<String>,
    notify: UnixDatagram,
    address: Option<SocketAddr>,
}

impl Daemon {
    /// The next line of the log that holds `words`.
    fn logged(&self, words: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("{words:?} was not logged:\n{}", seen.join("\n")),
            }
        }
    }

    /// Waits until systemd was told `state`.
    fn notified(&self, state: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.notify.recv(&mut buffer).unwrap_or_else(|error| panic!("{state}: {error}"));
            if text(&buffer[..length]).lines().any(|line| line == state) {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn ended(&mut self) -> Option<i32> {
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the daemon did not end");
    }

    fn submit(&self, recipients: &[&str]) {
        let mut stream = TcpStream::connect(self.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut say = |line: &str, code: &str| {
            stream.write_all(line.as_bytes()).unwrap();
            loop {
                let mut reply = String::new();
                reader.read_line(&mut reply).unwrap();
                assert!(reply.starts_with(code), "{line:?}: {reply:?}");
                if reply.as_bytes().get(3) == Some(&b' ') {
                    break;
                }
            }
        };
        say("", "220");
        say("EHLO client.example\r\n", "250");
        say("MAIL FROM:<me@example.org>\r\n", "250");
        for recipient in recipients {
            say(&format!("RCPT TO:<{recipient}>\r\n"), "250");
        }
        say("DATA\r\n", "354");
        say("Subject: hello\r\n\r\nhello\r\n.\r\n", "250");
        say("QUIT\r\n", "221");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_queue_is_seen_and_changed_and_survives_a_restart() {
    let site = Site::new();
    let mut daemon = site.serve();
    assert_eq!(site.json(&["queue", "list"]), Vec::<Value>::new());
    daemon.submit(&["a@one.example", "b@one.example", "c@two.example"]);

    let items = site.json(&["queue", "list"]);
    assert_eq!(items.len(), 2, "{items:?}");
    let one = items.iter().find(|item| item["destination"] == "one.example").unwrap();
    assert_eq!(one["sender"], "me@example.org");
    assert_eq!(one["recipients"].as_array().unwrap().len(), 2);
    let id = one["id"].as_str().unwrap();
    let message = id.split('.').next().unwrap();

    let shown = site.stsrelay(&["queue", "show", message]);
    assert_eq!(shown.status.code(), Some(0));
    assert!(text(&shown.stdout).contains("a@one.example pending"), "{}", text(&shown.stdout));
    assert_eq!(site.json(&["queue", "list", "--recipient-domain", "two.example"]).len(), 1);
    assert_eq!(site.json(&["queue", "list", "--sender", "nobody@example.org"]).len(), 0);

    assert_eq!(site.json(&["queue", "hold", "--all"])[0]["count"], 2);
    assert_eq!(site.json(&["queue", "delete", "--recipient-domain", "two.example"])[0]["count"], 1);

    // Nothing of this id: a negative answer.
    for verb in ["show", "retry", "hold", "release", "delete"] {
        let output = site.stsrelay(&["queue", verb, "1-7ZZZZZZZ"]);
        assert_eq!(output.status.code(), Some(1), "{verb}: {}", text(&output.stderr));
    }

    daemon.signal("-TERM");
    daemon.notified("STOPPING=1");
    assert_eq!(daemon.ended(), Some(0));
    assert!(!site.path().join("run/admin.sock").exists());
    assert_eq!(site.stsrelay(&["queue", "list"]).status.code(), Some(2));

    let mut daemon = site.serve();
    let items = site.json(&["queue", "list"]);
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!((&items[0]["id"], &items[0]["state"]), (&Value::from(id), &Value::from("held")));
    assert_eq!(site.json(&["queue", "stats"])[0]["held"], 1);
    assert_eq!(site.json(&["queue", "release", id])[0]["count"], 1);
    assert_eq!(site.json(&["queue", "delete", message])[0]["count"], 1);
    daemon.signal("-INT");
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn nothing_known_is_a_negative_answer_only_when_asked_for_by_name() {
    let site = Site::new();
    let _daemon = site.serve();
    for (arguments, code) in [
        (&["policy", "list"][..], 0),
        (&["policy", "show", "example.org"], 1),
        (&["policy", "forget", "example.org"], 1),
        (&["report", "list"], 0),
        (&["report", "show", "example.org"], 1),
        (&["report", "preview", "example.org"], 1),
        (&["queue", "stats"], 0),
        (&["queue", "retry", "--all"], 0),
    ] {
        let output = site.stsrelay(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn what_another_process_holds_is_said_in_one_line() {
    let site = Site::new();
    let daemon = site.serve();
    let output = site.stsrelay(&["serve"]);
    let line = text(&output.stderr);
    assert!(
        line.starts_with("stsrelay: stsrelay.toml: admin.socket: another daemon answers on run/admin.sock"),
        "{line}"
    );
    assert_eq!((line.lines().count(), output.status.code()), (1, Some(78)));

    let taken = daemon.address.unwrap();
    let other = Site::new();
    other.write(&other.text().replace("127.0.0.1:0", &taken.to_string()));
    let output = other.stsrelay(&["serve"]);
    let line = text(&output.stderr);
    assert!(
        line.starts_with(&format!(
            "stsrelay: stsrelay.toml: listener: \"smarthost\": cannot listen on {taken}: Address already in use"
        )),
        "{line}"
    );
    assert_eq!((line.lines().count(), output.status.code()), (1, Some(78)));
    assert!(!other.path().join("var").exists(), "the store was opened");

    let third = Site::new();
    third.write(&third.text().replace("\"var\"", &format!("{:?}", site.path().join("var"))));
    let output = third.stsrelay(&["serve"]);
    let line = text(&output.stderr);
    assert!(line.starts_with("stsrelay: stsrelay.toml: server.data_dir: "), "{line}");
    assert_eq!((line.lines().count(), output.status.code()), (1, Some(78)));
}

#[test]
fn a_reload_changes_what_may_change_and_a_bad_one_changes_nothing() {
    let site = Site::new();
    let mut daemon = site.serve();
    let good = site.text();

    site.write(&format!("{good}[delivery]\nretry = [\"soon\"]\n"));
    daemon.signal("-HUP");
    daemon.logged("delivery.retry[0]: \"soon\" is not a duration");
    daemon.logged("the old one stays in force");
    daemon.notified("READY=1");

    site.write(
        &good
            .replace("data_dir = \"var\"", "data_dir = \"elsewhere\"")
            .replace("trusted_networks = [\"127.0.0.0/8\"]", "trusted_networks = [\"192.0.2.0/24\"]"),
    );
    daemon.signal("-HUP");
    assert!(daemon.logged("takes effect after a restart").contains("server.data_dir"));
    daemon.logged("reloaded");
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");

    // We are not in a trusted network any more.
    let mut stream = TcpStream::connect(daemon.address.unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"EHLO client.example\r\nMAIL FROM:<me@example.org>\r\nRCPT TO:<a@one.example>\r\nQUIT\r\n",
        )
        .unwrap();
    let replies: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).collect();
    assert!(replies.iter().any(|reply| reply.starts_with('5')), "{replies:#?}");

    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
    assert!(!site.path().join("elsewhere").exists());
}

#[test]
fn a_second_signal_stops_at_once_and_loses_nothing() {
    // A name server that never answers keeps the attempt under way.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let site = Site::with_dns(silent.local_addr().unwrap());
    let mut daemon = site.serve();
    daemon.submit(&["a@one.example"]);
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.recv(&mut [0; 512]).unwrap();
    daemon.signal("-TERM");
    daemon.notified("STOPPING=1");
    daemon.signal("-TERM");
    daemon.logged("second signal: stopping at once");
    assert_eq!(daemon.ended(), Some(0));

    let _daemon = site.serve();
    assert_eq!(site.json(&["queue", "list"]).len(), 1);
}

#[test]
fn a_person_is_told_where_to_submit() {
    let site = Site::new();
    let mut child = site.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("queue list --config stsrelay.toml") {
        assert!(stderr.read_line(&mut told).unwrap() > 0, "{told}");
    }
    assert!(told.contains("Submit mail to 127.0.0.1:"), "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
}

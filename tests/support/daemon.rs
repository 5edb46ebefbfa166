//! The real daemon as a child process, configured for the world.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dns::Dns;
use super::pki::{Kind, Pki};
use super::web::Web;
use super::{PATIENCE, eventually};

/// The daemon's own name.
pub const HOSTNAME: &str = "relay.world.test";

/// The daemon.
pub struct Daemon {
    dir: TempDir,
    child: Option<Child>,
    /// The listener for trusted networks, in clear.
    pub smarthost: SocketAddr,
    /// The listener with STARTTLS that demands AUTH.
    pub submission: SocketAddr,
    /// The listener with implicit TLS that demands AUTH.
    pub submissions: SocketAddr,
    /// A listener without AUTH whose trusted networks we are not in.
    pub stranger: SocketAddr,
}

/// The program: the built binary, or in the demo the demo itself, which does what the binary does when
/// it is given a verb.
fn program() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_stsrelay") {
        Some(path) => path.into(),
        None => std::env::current_exe().expect("a program knows where it is"),
    }
}

/// A loopback address that no other world of this or another test process uses, so that the ports
/// found free on it stay free until the daemon takes them, and between its restarts.
fn own_ip() -> Ipv4Addr {
    static WORLDS: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + WORLDS.fetch_add(1, Ordering::Relaxed) % 128, high, low)
}

/// Ports nobody has on an address of our own; all different, since all are held until the last.
pub fn free_addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let ip = own_ip();
    let listeners: [TcpListener; COUNT] =
        std::array::from_fn(|_| TcpListener::bind((ip, 0)).expect("loopback can be bound"));
    listeners.each_ref().map(|listener| listener.local_addr().expect("bound"))
}

impl Daemon {
    /// A daemon configured for this world, not yet started.
    pub fn configure(pki: &Pki, dns: &Dns, web: &Web, mx_port: u16, extra: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        let leaf = pki.leaf(&[HOSTNAME], Kind::Good);
        fs::write(path("cert.pem"), leaf.certificate_pem()).expect("writable");
        fs::write(path("key.pem"), leaf.key_pem()).expect("writable");
        fs::write(path("roots.pem"), pki.root_pem()).expect("writable");
        let hash = stsrelay::submission::auth::hash_password("secret");
        fs::write(path("users"), format!("# users\nalice:{hash}\n")).expect("writable");
        let [smarthost, submission, submissions, stranger] = free_addresses();
        let root = dir.path().display();
        let config = format!(
            r#"
[server]
hostname = "{HOSTNAME}"
data_dir = "{root}/data"

[[listener]]
name = "smarthost"
listen = ["{smarthost}"]
tls = "none"
auth = "none"
trusted_networks = ["127.0.0.0/8"]

[[listener]]
name = "submission"
listen = ["{submission}"]
tls = "starttls"
auth = "required"

[[listener]]
name = "submissions"
listen = ["{submissions}"]
tls = "implicit"
auth = "required"

[[listener]]
name = "stranger"
listen = ["{stranger}"]
trusted_networks = ["192.0.2.0/24"]

[tls]
certificate_file = "{root}/cert.pem"
key_file = "{root}/key.pem"
extra_roots_file = "{root}/roots.pem"
use_system_roots = false

[auth]
users_file = "{root}/users"

[dns]
nameservers = ["{dns}"]

[delivery]
smtp_port = {mx_port}
retry = ["1h"]

[mta_sts]
https_port = {https_port}
fetch_timeout = "5s"

[network]
allow_private_destinations = ["127.0.0.0/8"]

[admin]
socket = "{root}/admin.sock"
"#,
            dns = dns.address,
            https_port = web.address.port(),
        );
        fs::write(path("stsrelay.toml"), config).expect("writable");
        fs::create_dir(path("stsrelay.d")).expect("writable");
        fs::write(path("stsrelay.d/extra.toml"), extra).expect("writable");
        Self { dir, child: None, smarthost, submission, submissions, stranger }
    }

    /// A file in the daemon's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STSRELAY_")) {
            command.env_remove(name);
        }
        command
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("writable");
        let mut command = self.command();
        command.arg("serve").arg("--config").arg(self.path("stsrelay.toml"));
        command.stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the daemon can be started"));
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) {
        self.spawn();
        for _ in 0..1500 {
            if self.greets().await {
                return;
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the daemon does not answer:\n{}", self.log());
    }

    /// Whether it says hello; its sockets are there before its queue is.
    async fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.smarthost).await else { return false };
        let mut greeting = [0u8; 4];
        let read = timeout(PATIENCE, stream.read_exact(&mut greeting)).await;
        matches!(read, Ok(Ok(_))) && greeting == *b"220 " && self.path("admin.sock").exists()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }

    /// Sends a signal, e.g. `HUP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    /// SIGTERM, and waits for the end; gives its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        let child = std::sync::Mutex::new(self.child.take().expect("running"));
        let child = &child;
        let status = eventually("the daemon to stop", || async move {
            child.lock().expect("no panic").try_wait().ok().flatten()
        })
        .await;
        status.code()
    }

    /// Kills and starts again.
    pub async fn restart(&mut self) {
        self.kill();
        self.start().await;
    }

    /// Runs a verb of the command line against this daemon.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments).arg("--config").arg(self.path("stsrelay.toml"));
        tokio::task::spawn_blocking(move || command.output().expect("the program runs"))
            .await
            .expect("no panic")
    }

    /// The same; must succeed, gives standard output.
    pub async fn ask(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments).await;
        assert!(
            output.status.success(),
            "{arguments:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A listing with `--json`: one value a line. Nothing found is an empty listing.
    pub async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.cli(&[arguments, &["--json"]].concat()).await;
        let code = output.status.code();
        assert!(
            matches!(code, Some(0 | 1)),
            "{arguments:?} ended with {code:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }

    /// Its `server.data_dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes the further configuration file anew; counts from the next start or SIGHUP.
    pub fn configure_extra(&self, extra: &str) {
        fs::write(self.path("stsrelay.d/extra.toml"), extra).expect("writable");
    }

    /// Writes the certificate for the listeners anew; counts from the next start or SIGHUP.
    pub fn install_certificate(&self, pki: &Pki) {
        let leaf = pki.leaf(&[HOSTNAME], Kind::Good);
        fs::write(self.path("cert.pem"), leaf.certificate_pem()).expect("writable");
        fs::write(self.path("key.pem"), leaf.key_pem()).expect("writable");
    }

    /// Runs `serve`, which must end by itself; gives what it said.
    pub async fn serve_refused(&self) -> Output {
        let mut command = self.command();
        command.arg("serve").arg("--config").arg(self.path("stsrelay.toml"));
        tokio::task::spawn_blocking(move || command.output().expect("the program runs"))
            .await
            .expect("no panic")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{log}");
        } else {
            // Whatever a story was about, nothing in it may have broken a task.
            assert!(!log.contains("panicked at"), "the daemon panicked:\n{log}");
        }
    }
}

//! For a person who started the daemon by hand: where to submit, and what to try next.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::admin::HttpAddress;
use crate::config::{Loaded, LogFormat};

/// Prints on standard error, unless a service manager reads it or the log there is for programs.
pub(super) fn print(loaded: &Loaded, addresses: &[(String, SocketAddr)]) {
    let managed = ["NOTIFY_SOCKET", "JOURNAL_STREAM"].iter().any(|name| std::env::var_os(name).is_some());
    if managed || loaded.config.log.format != LogFormat::Text {
        return;
    }
    let program = std::env::args().next().unwrap_or_else(|| "stsrelay".to_owned());
    let page = match &loaded.config.admin.http {
        Some(HttpAddress::Tcp(address)) => Some(*address),
        Some(HttpAddress::Unix(_)) | None => None,
    };
    let text = text(&program, &loaded.file.display().to_string(), addresses, page);
    // A closed standard error is no reason to stop relaying.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn text(program: &str, file: &str, addresses: &[(String, SocketAddr)], page: Option<SocketAddr>) -> String {
    let Some((_, first)) = addresses.first() else { return String::new() };
    let to = reachable(*first);
    let (host, port, place) = (to.ip(), to.port(), to);
    let places: Vec<String> = addresses.iter().map(|(name, address)| format!("{address} ({name})")).collect();
    let page = page.map(|page| format!("  http://{}/ in a browser\n", reachable(page))).unwrap_or_default();
    format!(
        "\n\
         Submit mail to {}. From this host, for example:\n\
         \x20 swaks --server {host} --port {port} --from you@example.org --to someone@example.net\n\
         \x20 printf 'Subject: test\\n\\ntest\\n' | curl --crlf smtp://{place} -T - \\\n\
         \x20     --mail-from you@example.org --mail-rcpt someone@example.net\n\
         Then look at it:\n\
         \x20 {program} queue list --config {file}\n\
         \x20 {program} policy list --config {file}\n\
         \x20 {program} config show --config {file}\n\
         {page}\
         Postfix: postconf -e 'relayhost = [{host}]:{port}'\n\
         Ctrl-C stops after what is under way; nothing accepted is lost.\n\n",
        places.join(", ")
    )
}

/// Where a client on this host reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_addresses_a_client_can_use() {
        let addresses = vec![
            ("smarthost".to_owned(), "0.0.0.0:2525".parse().unwrap()),
            ("tls".to_owned(), "[::1]:465".parse().unwrap()),
        ];
        let page = "0.0.0.0:8025".parse().ok();
        let text = text("target/release/stsrelay", "a.toml", &addresses, page);
        assert!(text.contains("  http://127.0.0.1:8025/ in a browser\nPostfix"), "{text}");
        assert!(text.contains("0.0.0.0:2525 (smarthost), [::1]:465 (tls)"), "{text}");
        assert!(text.contains("--server 127.0.0.1 --port 2525"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(super::text("x", "y", &[], None), "");
    }
}

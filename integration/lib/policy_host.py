"""Policy hosts that misbehave, each in the way its name says: mta-sts.WAY... .

Usage: policy_host.py HOST:PORT TLSDIR POLICY ELSEWHERE LOG
A name shows TLSDIR/NAME.crt. POLICY is the file a good host would serve; ELSEWHERE is the URL redirects lead to. LOG gets
a line per request: name, path, octets sent.

  drip       an octet a second, for ever          redirect   301 to ELSEWHERE, where the policy is
  html       the policy, as text/html             notype     the policy, of no type
  large      text of 1 MB                         endless    chunks without end
  short      announces more than comes            long       announces less than comes
  gzip       the policy, compressed unasked       binary     octets that are no text
  missing    404                                  trouble    503
  silent     no reply at all                      good       the policy as it should be
"""
import gzip
import pathlib
import socket
import ssl
import sys
import threading
import time

host, port = sys.argv[1].rsplit(":", 1)
folder, policy_file, elsewhere = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
log = open(sys.argv[5], "a", buffering=1)


def context_of(name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return context


def choose(connection, name, _):
    if name and (folder / f"{name}.crt").exists():
        connection.context = context_of(name)
        connection.story_name = name


class Named(ssl.SSLSocket):
    story_name = ""


def head(status, *fields):
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "Connection: close", "", ""]).encode()


def plain(body):
    return head("200 OK", "Content-Type: text/plain", f"Content-Length: {len(body)}") + body


def ways(way, policy):
    """What is sent, piece by piece."""
    length = f"Content-Length: {len(policy)}"
    text = "Content-Type: text/plain"
    if way == "drip":
        yield head("200 OK", text, length)
        for at in range(len(policy)):
            yield policy[at : at + 1]
            time.sleep(1)
    elif way == "redirect":
        yield head("301 Moved", f"Location: {elsewhere}", "Content-Length: 0")
    elif way == "html":
        yield head("200 OK", "Content-Type: text/html", length) + policy
    elif way == "notype":
        yield head("200 OK", length) + policy
    elif way == "large":
        yield plain(policy + b"x: " + b"y" * 1_000_000 + b"\r\n")
    elif way == "endless":
        yield head("200 OK", text, "Transfer-Encoding: chunked")
        while True:
            yield b"400\r\n" + b"z" * 0x400 + b"\r\n"
    elif way == "short":
        yield head("200 OK", text, f"Content-Length: {len(policy) + 500}") + policy
    elif way == "long":
        yield head("200 OK", text, "Content-Length: 20") + policy
    elif way == "gzip":
        body = gzip.compress(policy)
        yield head("200 OK", text, "Content-Encoding: gzip", f"Content-Length: {len(body)}") + body
    elif way == "binary":
        yield plain(bytes(range(256)) * 4)
    elif way == "missing":
        yield head("404 Not Found", text, length) + policy
    elif way == "trouble":
        yield head("503 Service Unavailable", text, length) + policy
    elif way == "silent":
        time.sleep(60)
    else:
        yield plain(policy)


def serve(raw):
    sent, name, path = 0, "-", "-"
    try:
        raw.settimeout(60)
        connection = outer.wrap_socket(raw, server_side=True)
        name = connection.story_name or "-"
        request = b""
        while b"\r\n\r\n" not in request and len(request) < 65536:
            data = connection.recv(4096)
            if not data:
                return
            request += data
        path = request.split(b" ")[1].decode("latin-1")
        for piece in ways(name.split(".")[1], policy_file.read_bytes()):
            connection.sendall(piece)
            sent += len(piece)
        connection.unwrap()
    except (OSError, IndexError):
        pass
    finally:
        log.write(f"{name} {path} {sent}\n")
        raw.close()


outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
outer.sslsocket_class = Named
outer.load_cert_chain(folder / "elsewhere.example.crt", folder / "elsewhere.example.key")
outer.sni_callback = choose
with socket.create_server((host, int(port)), backlog=64) as door:
    while True:
        client, _ = door.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()

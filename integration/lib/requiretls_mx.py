"""A mail host that offers REQUIRETLS inside TLS, which Postfix does not: enough SMTP to take a message.

Usage: requiretls_mx.py HOST:PORT NAME PEM MAILDIR LOG
What it takes goes to MAILDIR with an X-Original-To line per recipient, as Postfix writes it; LOG gets each MAIL command,
with `tls` or `clear` before it.
"""
import pathlib
import socketserver
import ssl
import sys
import uuid

host, port = sys.argv[1].rsplit(":", 1)
name, pem, maildir, log_path = sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]), sys.argv[5]
log = open(log_path, "a", buffering=1)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)


class Session(socketserver.StreamRequestHandler):
    timeout = 30

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        secure, recipients = False, []
        self.say(f"220 {name} ESMTP")
        while line := self.rfile.readline(4096):
            command = line.decode("latin-1").strip()
            verb = command.upper()
            if verb.startswith("EHLO"):
                self.say(f"250-{name}")
                self.say("250 REQUIRETLS" if secure else "250 STARTTLS")
            elif verb == "STARTTLS" and not secure:
                self.say("220 2.0.0 Go ahead")
                self.request = context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", buffering=0)
                secure = True
            elif verb.startswith("MAIL FROM:"):
                log.write(f"{'tls' if secure else 'clear'} {command}\n")
                recipients = []
                self.say("250 2.1.0 Ok")
            elif verb.startswith("RCPT TO:"):
                recipients.append(command[9 : command.index(">")])
                self.say("250 2.1.5 Ok")
            elif verb == "DATA":
                self.say("354 Go on")
                text = []
                while (line := self.rfile.readline(65536)) not in (b".\r\n", b""):
                    text.append(line.removeprefix(b"."))
                header = "".join(f"X-Original-To: {recipient}\n" for recipient in recipients).encode()
                received = f"Received: from relay (using {self.request.version()} with cipher)\n".encode() if secure else b""
                (maildir / f"{uuid.uuid4()}.requiretls").write_bytes(header + received + b"".join(text).replace(b"\r\n", b"\n"))
                self.say("250 2.0.0 Taken")
            elif verb == "QUIT":
                self.say("221 2.0.0 Bye")
                return
            else:
                self.say("502 5.5.1 Not here" if verb not in ("RSET", "NOOP") else "250 2.0.0 Ok")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server((host, int(port)), Session).serve_forever()

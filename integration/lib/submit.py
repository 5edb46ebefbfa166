"""Submits one message and prints the reply to its final dot.

Usage: submit.py HOST:PORT FROM TO[,TO...] FILE. FILE is sent as it is (CRLF line ends, dots stuffed on the wire).
"""
import smtplib
import sys

host, port = sys.argv[1].rsplit(":", 1)
sender, recipients = sys.argv[2], sys.argv[3].split(",")
text = open(sys.argv[4], "rb").read()
with smtplib.SMTP(host, int(port), timeout=30) as session:
    session.ehlo("client.example")
    options = ["BODY=8BITMIME"] if session.has_extn("8bitmime") else []
    code, reply = session.mail(sender, options)
    if code != 250:
        sys.exit(f"MAIL FROM refused: {code} {reply!r}")
    for recipient in recipients:
        code, reply = session.rcpt(recipient)
        if code != 250:
            sys.exit(f"{recipient} refused: {code} {reply!r}")
    code, reply = session.data(text)
    if code != 250:
        sys.exit(f"message refused: {code} {reply!r}")
    print(code, reply.decode())

"""A client that stops in the middle of its message until it is told to go on.

Usage: drain.py HOST:PORT RECIPIENT STEM
Creates STEM.ready after half of the message, waits for STEM.go, sends the rest and prints the reply's code.
"""
import pathlib
import smtplib
import sys
import time

host, port = sys.argv[1].rsplit(":", 1)
recipient, stem = sys.argv[2], sys.argv[3]
session = smtplib.SMTP(host, int(port), timeout=60)
session.ehlo("client.example")
session.mail("user@origin.example")
session.rcpt(recipient)
session.docmd("DATA")
session.send(f"From: <user@origin.example>\r\nTo: <{recipient}>\r\nSubject: slow\r\n\r\nfirst half\r\n")
pathlib.Path(stem + ".ready").touch()
for _ in range(400):
    if pathlib.Path(stem + ".go").exists():
        break
    time.sleep(0.1)
session.send("second half\r\n.\r\n")
print(session.getreply()[0])
try:
    session.quit()
except smtplib.SMTPException:
    pass

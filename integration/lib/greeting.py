"""Succeeds when HOST:PORT greets as an SMTP server; says QUIT."""
import smtplib
import sys

host, port = sys.argv[1].rsplit(":", 1)
with smtplib.SMTP(host, int(port), timeout=3) as session:
    session.noop()

"""Sends one message per row, waits until each has had its attempt, and prints what became of it beside what should.

Usage: matrix.py ROWS RELAY TLS_RELAY ROOTS MAILDIR STSRELAY CONFIG
ROWS has a line per row, fields separated by `|`: DOMAIN, what DANE says, what MTA-STS says, what the host shows, what
the message asks (-, REQUIRETLS or No), and what is to come of it:
  tls        delivered over TLS                     clear      delivered without
  waits      deferred, and nothing of it arrived    bounces    given up at once
Exit status 1 when a row differs. RELAY takes mail in clear, TLS_RELAY over STARTTLS (for REQUIRETLS).
"""
import json
import pathlib
import smtplib
import ssl
import subprocess
import sys
import time

rows_file, relay, tls_relay, roots, maildir, binary, config = sys.argv[1:8]
SENDER = "user@origin.example"
SECONDS_MAX = 60


def submit(domain, asks):
    recipient = f"bob@{domain}"
    header = "TLS-Required: No\r\n" if asks == "No" else ""
    text = f"From: <{SENDER}>\r\nTo: <{recipient}>\r\nSubject: {domain}\r\n{header}\r\nHello.\r\n"
    host, port = (tls_relay if asks == "REQUIRETLS" else relay).rsplit(":", 1)
    with smtplib.SMTP(host, int(port), timeout=20) as session:
        session.ehlo("client.example")
        options = []
        if asks == "REQUIRETLS":
            context = ssl.create_default_context(cafile=roots)
            context.check_hostname = False
            session.starttls(context=context)
            session.ehlo("client.example")
            options = ["REQUIRETLS"]
        session.sendmail(SENDER, [recipient], text, mail_options=options)


def stsrelay(*words):
    done = subprocess.run([binary, *words, "--config", config], capture_output=True, text=True, timeout=30)
    return [json.loads(line) for line in done.stdout.splitlines()]


def came(domain):
    """How the message came, if it did; and whether a bounce names it."""
    fate = None
    for file in pathlib.Path(maildir).iterdir():
        text = file.read_text(errors="replace")
        if f"X-Original-To: bob@{domain}\n" in text:
            ours = text.split("Received: from client.example")[0]
            fate = "tls" if "(using TLSv1" in ours else "clear"
        elif f"X-Original-To: {SENDER}\n" in text and f"bob@{domain}" in text:
            fate = fate or "bounces"
    return fate


rows = [[field.strip() for field in line.split("|")] for line in open(rows_file) if line.strip() and line[0] != "#"]
for domain, _, _, _, asks, _ in rows:
    submit(domain, asks)
fates, reasons = {}, {}
end = time.monotonic() + SECONDS_MAX
while len(fates) < len(rows) and time.monotonic() < end:
    waiting = {}
    for item in stsrelay("queue", "list", "--json"):
        if item["history"]:
            waiting[item["destination"]] = item["history"][-1]
    for domain, *_ in rows:
        if domain in fates:
            continue
        fate = came(domain) or ("waits" if domain in waiting else None)
        if fate:
            fates[domain] = fate
            reasons[domain] = waiting.get(domain)
    time.sleep(0.2)

# Once more, for mail that came although its message waits.
bad = 0
print(f"{'DANE':<18} {'MTA-STS':<9} {'asks':<11} {'host shows':<26} {'came of it':<9} rule")
for domain, dane, sts, shows, asks, expected in rows:
    fate = fates.get(domain, "nothing")
    if fate == "waits" and came(domain):
        fate = "leaked"
    attempts = stsrelay("evidence", "--recipient-domain", domain, "--json")
    hosts = attempts[-1].get("hosts") if attempts else None
    rule = hosts[-1]["rule"] if hosts else "-"
    mark = "" if fate == expected else f"   EXPECTED {expected}"
    bad += fate != expected
    print(f"{dane:<18} {sts:<9} {asks:<11} {shows:<26} {fate:<9} {rule}{mark}")
    if mark and reasons.get(domain):
        print(f"    {reasons[domain]['result']}")
print(f"{len(rows)} rows, {bad} differ")
sys.exit(1 if bad else 0)

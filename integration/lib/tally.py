"""Compares what flood.py sent with what came.

Usage: tally.py MAILDIR DOMAIN DIR
Prints `missing N twice N`: acknowledged messages of all DIR/*.acked that are not in the Maildir, and messages there
more than once. A message that was begun but not acknowledged may have come, once.
"""
import collections
import pathlib
import sys

maildir, domain, folder = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
came = collections.Counter()
for file in maildir.iterdir():
    for line in file.open("rb"):
        line = line.strip()
        if line.startswith(b"X-Original-To: "):
            recipient = line.split(b": ", 1)[1].decode()
            if recipient.endswith("@" + domain):
                came[recipient] += 1
        if not line:
            break
acked = {line for file in folder.glob("*.acked") for line in file.read_text().split()}
sent = {line for file in folder.glob("*.sent") for line in file.read_text().split()}
strange = set(came) - sent
if strange:
    sys.exit(f"never sent, but came: {sorted(strange)[:5]}")
print("missing", len(acked - set(came)), "twice", sum(n - 1 for n in came.values()))

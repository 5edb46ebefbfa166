#!/usr/bin/env python3
"""Clients that come one after the other until they are told to stop, and how each was received.

knock.py HOST:PORT FOLDER: until there is FOLDER/enough. Prints `refused N, broken N, closing N, served N, longest S`:
no connection; one that ended without a word; one told 421 (try again at once); one that got its reply to NOOP;
and how long the one that waited most had to.
"""
import os
import socket
import sys
import time

(host, port), folder = sys.argv[1].rsplit(":", 1), sys.argv[2]
count = dict.fromkeys(["refused", "broken", "closing", "served"], 0)
longest = 0.0


def knock():
    try:
        client = socket.create_connection((host, int(port)), timeout=60)
    except OSError:
        return "refused"
    with client, client.makefile("rb") as replies:
        try:
            greeting = replies.readline()
            client.sendall(b"NOOP\r\n")
            reply = replies.readline()
        except OSError:
            return "broken"
    if greeting.startswith(b"220") and reply.startswith(b"250"):
        return "served"
    return "closing" if b"421" in (greeting[:3], reply[:3]) else "broken"


while not os.path.exists(f"{folder}/enough"):
    begun = time.monotonic()
    count[knock()] += 1
    longest = max(longest, time.monotonic() - begun)
    time.sleep(0.002)
print(", ".join(f"{what} {times}" for what, times in count.items()) + f", longest {longest:.1f}")

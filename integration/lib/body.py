"""A message whose body would show any change on the way.

Usage: body.py make FILE FROM TO     writes it, with CRLF
       body.py same SENT ARRIVED     compares the bodies; ARRIVED has LF, as a Maildir file
"""
import sys


def make(path, sender, recipient):
    body = b"".join(
        line + b"\r\n"
        for line in [
            b".", b"..", b".leading dot", b"", b"trailing blanks  \t", b"From the start of a line",
            "8 bit: \u00e4\u00f6\u00fc \u20ac".encode(), bytes(range(0x80, 0x100)), b"\ttab", b"x" * 990,
            b"QUIT", b"RSET", *[b"%06d " % n + b"abcdefghij" * 9 for n in range(3000)], b"", b".", b"", b"",
        ]
    )
    head = (
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: bytes\r\nDate: Sun, 06 Nov 2022 08:00:00 +0000\r\n"
        f"Message-ID: <bytes@origin.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n"
    )
    open(path, "wb").write(head.encode() + body)


def same(sent, arrived):
    expected = open(sent, "rb").read().split(b"\r\n\r\n", 1)[1].replace(b"\r\n", b"\n")
    got = open(arrived, "rb").read().split(b"\n\n", 1)[1]
    if got != expected:
        at = next((n for n, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
        around = slice(max(0, at - 30), at + 30)
        sys.exit(f"bodies differ at octet {at} of {len(expected)}: {got[around]!r} instead of {expected[around]!r}")


{"make": make, "same": same}[sys.argv[1]](*sys.argv[2:])

"""Verifies the DKIM signature of a mail with dkimpy, asking the world's resolver for the key.

Usage: dkim_verify.py RESOLVER:PORT FILE DOMAIN
"""
import sys

import dkim
import dns.resolver

address, port = sys.argv[1].rsplit(":", 1)
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = [address], int(port)


def txt(name, timeout=5):
    answer = resolver.resolve(name.decode() if isinstance(name, bytes) else name, "TXT", lifetime=timeout)
    return b"".join(next(iter(answer)).strings)


text = open(sys.argv[2], "rb").read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
signed = dkim.DKIM(text)
if not signed.verify(dnsfunc=txt):
    sys.exit("the signature does not verify")
if signed.domain != sys.argv[3].encode():
    sys.exit(f"signed by {signed.domain}")
names = {name.lower() for name in signed.include_headers}
missing = {b"from", b"to", b"subject", b"tls-report-domain", b"tls-report-submitter"} - names
if missing:
    sys.exit(f"not signed: {missing}")
if b"l" in signed.signature_fields:
    sys.exit("the signature covers only a part of the body (l=)")

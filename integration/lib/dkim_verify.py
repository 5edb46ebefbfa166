"""Verifies every DKIM signature of a mail with dkimpy, asking the world's resolver for the keys.

Usage: dkim_verify.py RESOLVER:PORT FILE DOMAIN ALGORITHM...   the signatures, in the order they stand there
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
algorithms = sys.argv[4:] or ["rsa-sha256"]
found = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(text).headers)
if found != len(algorithms):
    sys.exit(f"{found} signatures, not {len(algorithms)}")
for index, algorithm in enumerate(algorithms):
    signed = dkim.DKIM(text)
    if not signed.verify(idx=index, dnsfunc=txt):
        sys.exit(f"signature {index} does not verify")
    if signed.domain != sys.argv[3].encode():
        sys.exit(f"signature {index} is by {signed.domain}")
    if signed.signature_fields[b"a"] != algorithm.encode():
        sys.exit(f"signature {index} is {signed.signature_fields[b'a']}")
    names = {name.lower() for name in signed.include_headers}
    missing = {b"from", b"to", b"subject", b"tls-report-domain", b"tls-report-submitter"} - names
    if missing:
        sys.exit(f"signature {index} is not over {missing}")
    if b"l" in signed.signature_fields:
        sys.exit(f"signature {index} covers only a part of the body (l=)")

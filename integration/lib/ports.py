"""Prints `export NAME=PORT` for each name given: ports free for TCP and UDP on every loopback address.

Below 32768, where the kernel takes no ports for outgoing connections.
"""
import random
import socket
import sys


def free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True


ports = random.sample(range(20000, 32000), 400)
for name in sys.argv[1:]:
    port = next(p for p in iter(ports.pop, None) if free(p))
    print(f"export {name}={port}")

#!/usr/bin/env python3
"""The part of systemd that a service of Type=notify sees, in little: readiness, status, and sockets kept over restarts.

notify.py FOLDER COMMAND...

Runs the command with NOTIFY_SOCKET, appends each line it sends to FOLDER/notified, keeps the descriptors that come
with FDSTORE=1 by their name, and hands them to the next run (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES). FDSTOREREMOVE=1
drops them. The pid is in FOLDER/held.pid while it runs, its exit status in FOLDER/held.status when it has ended.
It is run again for each file FOLDER/next, which is removed; FOLDER/end ends all.
"""
import array
import os
import signal
import socket
import sys
import time

folder, command = sys.argv[1], sys.argv[2:]
path = f"{folder}/notify"
channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
channel.bind(path)
os.chmod(path, 0o666)
channel.settimeout(0.05)
kept = {}


def listen():
    """One message, if there is one."""
    try:
        text, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_LEN(16 * 4))
    except TimeoutError:
        return
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    lines = text.decode().splitlines()
    said = dict(line.split("=", 1) for line in lines)
    name = said.get("FDNAME", "stored")
    if said.get("FDSTOREREMOVE") == "1":
        for descriptor in kept.pop(name, []):
            os.close(descriptor)
    for descriptor in descriptors:
        known = [os.fstat(d).st_ino for d in kept.get(name, [])]
        if said.get("FDSTORE") == "1" and os.fstat(descriptor).st_ino not in known:
            kept.setdefault(name, []).append(descriptor)
        else:
            os.close(descriptor)
    with open(f"{folder}/notified", "a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def start():
    given = [(name, descriptor) for name, all in kept.items() for descriptor in all]
    pid = os.fork()
    if pid:
        return pid
    # Out of the way of 3, 4, ... first.
    moved = [os.dup2(descriptor, 100 + n) for n, (_, descriptor) in enumerate(given)]
    for n, descriptor in enumerate(moved):
        os.dup2(descriptor, 3 + n, inheritable=True)
    os.closerange(3 + len(given), 200)
    environment = dict(os.environ, NOTIFY_SOCKET=path)
    if given:
        environment.update(
            LISTEN_FDS=str(len(given)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(n for n, _ in given)
        )
    os.execvpe(command[0], command, environment)


deadline = time.monotonic() + 120
while time.monotonic() < deadline and not os.path.exists(f"{folder}/end"):
    if not os.path.exists(f"{folder}/next"):
        listen()
        continue
    os.remove(f"{folder}/next")
    pid = start()
    with open(f"{folder}/held.pid", "w") as file:
        file.write(str(pid))
    while True:
        listen()
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
    with open(f"{folder}/held.status", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(status)))

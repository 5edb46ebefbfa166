#!/usr/bin/env python3
"""A service manager in little: holds a listening socket open and runs a command with it, again and again.

hold.py ADDRESS:PORT FOLDER COMMAND...

The command gets the socket as systemd passes one (LISTEN_FDS, LISTEN_PID, descriptor 3). Its pid is in
FOLDER/held.pid while it runs, its exit status in FOLDER/held.status when it has ended. It is run again for each
file FOLDER/next, which is removed; FOLDER/end ends all.
"""
import os
import socket
import subprocess
import sys
import time

(address, port), folder, command = sys.argv[1].rsplit(":", 1), sys.argv[2], sys.argv[3:]
listening = socket.create_server((address, int(port)), backlog=16)
os.dup2(listening.fileno(), 3, inheritable=True)


def waits(deadline=time.monotonic() + 120):
    while time.monotonic() < deadline and not os.path.exists(f"{folder}/end"):
        if os.path.exists(f"{folder}/next"):
            os.remove(f"{folder}/next")
            return True
        time.sleep(0.05)
    return False


while waits():
    # LISTEN_PID is the pid of whoever reads it: the shell becomes the command.
    process = subprocess.Popen(
        ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh", *command], pass_fds=(3,)
    )
    with open(f"{folder}/held.pid", "w") as file:
        file.write(str(process.pid))
    status = process.wait(timeout=120)
    with open(f"{folder}/held.status", "w") as file:
        file.write(str(status))

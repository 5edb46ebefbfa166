"""Many small messages at once, each to a recipient of its own.

Usage: flood.py HOST:PORT FROM DOMAIN NAME COUNT DIR
DIR/NAME.sent gets each recipient whose message was begun, DIR/NAME.acked each that got 250 to its final dot,
a line each, written at once. A connection that breaks ends its share of the work. Prints how many were acknowledged.
"""
import smtplib
import sys
import threading

CONNECTIONS = 8
host, port = sys.argv[1].rsplit(":", 1)
sender, domain, name, count, folder = sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6]
sent = open(f"{folder}/{name}.sent", "a", buffering=1)
acked = open(f"{folder}/{name}.acked", "a", buffering=1)
lock = threading.Lock()
total = 0


def work(share):
    global total
    try:
        with smtplib.SMTP(host, int(port), timeout=60) as session:
            for n in share:
                recipient = f"{name}-{n}@{domain}"
                text = (
                    f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: flood {n}\r\n"
                    f"Message-ID: <{name}.{n}@origin.example>\r\nDate: Sun, 06 Nov 2022 08:00:00 +0000\r\n\r\n"
                    + f"message {n} of {name}\r\n" * 40
                )
                with lock:
                    sent.write(recipient + "\n")
                session.sendmail(sender, [recipient], text)
                with lock:
                    acked.write(recipient + "\n")
                    total += 1
    except (OSError, smtplib.SMTPException) as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)


threads = [threading.Thread(target=work, args=(range(n, count, CONNECTIONS),)) for n in range(CONNECTIONS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(total, "acknowledged")

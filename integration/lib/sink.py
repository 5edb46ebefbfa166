"""The application behind nginx that takes https: reports.

Usage: sink.py PORT DIR. Each POST becomes DIR/N.json with method, path, headers and the name of its body, DIR/N.body.
Answers 201, or the status written in DIR/status.
"""
import json
import pathlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
lock = threading.Lock()
count = 0


class Sink(BaseHTTPRequestHandler):
    def do_POST(self):
        global count
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = folder / "status"
        code = int(status.read_text()) if status.exists() else 201
        with lock:
            count += 1
            name = f"{count:03}"
        (folder / f"{name}.body").write_bytes(body)
        about = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "status": code}
        (folder / f"{name}.json").write_text(json.dumps(about))
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", port), Sink).serve_forever()

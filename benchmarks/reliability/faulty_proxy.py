"""An HTTP server that stands before a real one and fails in seeded ways."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("drop", "lost", "refuse", "fail", "delay")
"""Before the server sees the request: close (drop), answer 503 (refuse), wait (delay); after it has carried it out:
close (lost), answer 500 (fail)."""


class FaultyProxy:
    """Forwards ``127.0.0.1:port`` to ``127.0.0.1:upstream``; every request meets a fault with some probability.

    ``mode`` may change at any time: ``healthy``, ``flaky`` (``rate`` of the requests meet one of :data:`FAULTS`),
    ``full`` (everything that writes is answered with 500), ``hang`` (no answer) or ``absent`` (connections are closed).
    """

    def __init__(self, upstream: int, mode: str = "healthy", *, rate: float = 0.4, delay: float = 0.3, seed: int = 0):
        self.upstream, self.mode, self.rate, self.delay = upstream, mode, rate, delay
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.met: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def handle_request(self) -> None:
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """What clients are given."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()

    def fault(self, method: str, path: str) -> str:
        """What this request meets."""
        with self.lock:
            fault = "none"
            if self.mode == "absent":
                fault = "drop"
            elif self.mode == "hang":
                fault = "hang"
            elif self.mode == "full" and method != "GET" and not path.endswith("search"):
                fault = "refuse"
            elif self.mode == "flaky" and self.random.random() < self.rate:
                fault = self.random.choice(FAULTS)
            self.met[fault] += 1
            return fault

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Carry out one request."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.fault(request.command, request.path)
        if fault == "hang":
            time.sleep(60)
        if fault == "delay":
            time.sleep(self.delay)
        if fault in ("drop", "hang"):
            self._hang_up(request)
        elif fault == "refuse":
            self._answer(request, 503, b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "busy"}')
        else:
            status, kind, answer = self._forward(request, body)
            if fault == "lost":
                self._hang_up(request)
            elif fault == "fail":
                self._answer(request, 500, b'{"error_code": "INTERNAL_ERROR", "message": "disk full"}')
            else:
                self._answer(request, status, answer, kind)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
        connection.request(request.command, request.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheader("Content-Type", "application/json"), content

    @staticmethod
    def _hang_up(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        with suppress(OSError):
            request.connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, status: int, body: bytes, kind: str = "application/json") -> None:
        with suppress(OSError):
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

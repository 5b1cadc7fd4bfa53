"""A proxy before an S3 server that makes its faults: overload, outage, slowness, answers that get lost."""

import http.client
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
#: of one connection; the others are forwarded as they are, since the signature covers them
_HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


class Proxy(ThreadingHTTPServer):
    """Forwards requests to ``target``; what it does to them is set while it runs.

    :ivar endpoint: http://127.0.0.1:PORT
    :ivar refused: share of the requests that are answered with 503
    :ivar delay: seconds that each request waits before it is forwarded
    :ivar hung: number of writes to come whose sender gets no leave to send, for 10 seconds
    :ivar lost: number of PUT requests to come that are carried out and not answered
    :ivar requests: "METHOD path" of each request, in order
    """

    daemon_threads = True

    def __init__(self, target: str, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.refused, self.delay, self.lost, self.hung = 0.0, 0.0, 0, 0
        self.requests: list[str] = []
        self.failed = 0
        self._random, self._lock, self._cut_until = random.Random(seed), threading.Lock(), 0.0

    def cut(self, seconds: float) -> None:
        """Answer nobody from now on, for so long; connections are closed."""
        self._cut_until = time.monotonic() + seconds

    def fate(self, command: str) -> str:
        """What happens to a request: ``cut``, ``refuse``, ``lose`` (its answer) or ``pass``."""
        with self._lock:
            if time.monotonic() < self._cut_until:
                found = "cut"
            elif self._random.random() < self.refused:
                found = "refuse"
            elif self.lost and command == "PUT":
                self.lost -= 1
                found = "lose"
            else:
                found = "pass"
            self.failed += found != "pass"
            return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: connections break here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # an answer goes out in one piece
    wbufsize = -1
    server: Proxy

    def handle_expect_100(self) -> bool:
        if self.server.hung:
            self.server.hung -= 1
            time.sleep(10)
            self.hang_up()
            return False
        answered = super().handle_expect_100()
        self.wfile.flush()
        return answered

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.command} {self.path}")
        fate = self.server.fate(self.command)
        if fate == "cut":
            return self.hang_up()
        if fate == "refuse":
            return self.answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        time.sleep(self.server.delay)
        status, headers, content = self.carried_out(body)
        if fate == "lose":
            return self.hang_up()
        return self.answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    def carried_out(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        names = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(target: str, seed: int = 0) -> Iterator[Proxy]:
    """A proxy before ``target``, while the context lasts."""
    proxy = Proxy(target, seed)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()

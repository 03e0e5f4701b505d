"""Answers HTTP requests with a function; what the demo's services share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

# How long the answer took to compute, for the client to see where its time went.
COMPUTE_HEADER = "X-Compute-Us"


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a response, and headers of its own."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class BadRequestError(Exception):
    """A request that cannot be answered, with what to change."""


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True


def serve(answer: Callable[[str, bytes], Answer]) -> None:
    """Listen on MUMIAN_PORT for ever; `answer` gets the path and the body of each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Whole responses, at once: the kernel must not wait for more to send, nor get one in pieces.
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            begun_s = time.perf_counter()
            try:
                status, answered = 200, answer(self.path, body)
            except BadRequestError as error:
                status, answered = 400, Answer(f"{error}\n".encode(), "text/plain")
            compute_us = round((time.perf_counter() - begun_s) * 1e6)
            self.send_response(status)
            own = {"Content-Type": answered.content_type, COMPUTE_HEADER: str(compute_us)}
            for name, value in {**own, **answered.headers, "Content-Length": str(len(answered.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answered.body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    _Server(("127.0.0.1", int(os.environ["MUMIAN_PORT"])), Handler).serve_forever()

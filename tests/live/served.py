"""A server on this machine that hands out a stream of its own making."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def served(
    answer: Callable[[int, Callable[[bytes], Any]], Any],
    *,
    kind: str = "video/mp2t",
    headers: dict[str, str] | None = None,
) -> Iterator[tuple[str, list[int]]]:
    """An address, and the numbers of the requests so far.

    answer: is called with the number of the request, from 0, and with what writes to the client.
    """
    requests: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = len(requests)
            requests.append(number)
            self.send_response(200)
            for name, value in {"Content-Type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client has gone
                answer(number, self.wfile.write)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/camera", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

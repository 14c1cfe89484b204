"""A server on this machine that hands out a stream of its own making."""

from __future__ import annotations

import socketserver
import struct
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


@contextmanager
def rtsp(data: bytes, *, sessions: int) -> Iterator[tuple[str, list[int]]]:
    """An address, and the number of each session so far, in each of which an MPEG-TS is played and then cut.

    A server of RFC 2326 as small as it can be: RTP in the TCP connection itself, payload type 33. sessions: then the
    connection is closed without an answer.
    """
    played: list[int] = []
    sdp = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"

    def answer(file: Any, write: Callable[[bytes], Any]) -> None:
        while request := file.readline():
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            verb, more, body = request.split()[0], b"", b""
            if verb == b"OPTIONS":
                more = b"Public: DESCRIBE, SETUP, PLAY\r\n"
            elif verb == b"DESCRIBE":
                more, body = b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(sdp), sdp
            elif verb == b"SETUP":
                more = b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            write(b"RTSP/1.0 200 OK\r\nCSeq: %s\r\n%s\r\n%s" % (headers[b"cseq"], more, body))
            if verb == b"PLAY":
                played.append(len(played))
                for number, at in enumerate(range(0, len(data), 1316)):  # 7 packets of 188 bytes
                    packet = struct.pack(">BBHII", 0x80, 33, number, 90 * number, 7) + data[at : at + 1316]
                    write(b"$\x00" + struct.pack(">H", len(packet)) + packet)
                return

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if len(played) < sessions:
                with suppress(OSError):
                    answer(self.rfile, self.wfile.write)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"rtsp://me:s3cret@127.0.0.1:{server.server_address[1]}/camera", played
        server.shutdown()

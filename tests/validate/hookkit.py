"""A webhook's other side on the loopback address, well behaved or not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hook:
    """A context manager. behave: given the number of the request (from 0), what is done with it: a status to answer,
    "hang" to say nothing until the end, "drip" to send an answer that never ends, "nonsense" for what is no HTTP."""

    def __init__(self, behave: Callable[[int], int | str] = lambda number: 200) -> None:
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self._changed = threading.Condition()
        self._end = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with hook._changed:
                    number = len(hook.bodies)
                    hook.bodies.append(body)
                    hook.headers.append(dict(self.headers))
                    hook._changed.notify_all()
                what = behave(number)
                try:
                    hook._answer(self, what)
                except OSError:  # the client hung up
                    pass

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=verysecret"

    def _answer(self, handler: BaseHTTPRequestHandler, what: int | str) -> None:
        if what == "hang":
            self._end.wait(60)
        elif what == "drip":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self._end.wait(0.05):
                handler.wfile.write(b"a")
                handler.wfile.flush()
        elif what == "nonsense":
            handler.wfile.write(b"this is no HTTP\r\n\r\n")
        else:
            handler.send_response(int(what))
            if what in (301, 307):
                handler.send_header("Location", self.url)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        handler.close_connection = True

    def __enter__(self) -> Hook:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def wait(self, number: int, timeout_s: float = 120.0) -> list[dict]:
        """The bodies, once there are `number` of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.bodies) >= number, timeout_s), (
                f"{len(self.bodies)} of {number} requests came"
            )
            return list(self.bodies)

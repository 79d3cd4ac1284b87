"""A way to the service that loses answers."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class lossy_proxy:  # noqa: N801  (used as a function)
    """Passes calls on, and loses each first answer to a POST, and each first stream after a few events."""

    def __init__(self, port: int) -> None:
        lost: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {n: v for n, v in self.headers.items() if n.lower() not in ("host", "connection")}
                with httpx.stream(
                    self.command, f"http://127.0.0.1:{port}{self.path}", content=body, headers=headers, timeout=60
                ) as answer:
                    once = self.headers.get("Idempotency-Key") or self.path
                    first, stream = once not in lost, self.path.endswith("/events")
                    lost.add(once)
                    if first and self.command == "POST" and not stream:
                        answer.read()
                        return  # and the connection ends
                    self.send_response(answer.status_code)
                    self.send_header("Content-Type", answer.headers["content-type"])
                    self.end_headers()
                    for part in answer.iter_raw():
                        self.wfile.write(part)
                        self.wfile.flush()
                        if first and stream and b"event: request" in part:
                            return

            do_GET = do_POST = pass_on  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.thread: Callable[[], None] = self.server.serve_forever

    def __enter__(self) -> int:
        threading.Thread(target=self.thread, args=(0.01,), daemon=True).start()
        return int(self.server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

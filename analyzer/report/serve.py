"""`analyze serve`: serve the page of a growing store to this machine only (127.0.0.1), read-only, and rebuild it for every snapshot."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import BoundedSemaphore, Lock, Timer
from typing import Any

from analyzer.report.data.study import measure_study, open_selected, report_request
from analyzer.report.page import page
from schemas.errors import HedgemarkError, UsageError

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MOST_CLIENTS = 32  # threads at a time; a browser opens at most six connections
PATIENCE_S = 10.0  # seconds a client may take to ask, and to take the answer


class Pages:
    """The page of the newest snapshot, cached until there is a newer one."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._lock = Lock()
        self._made: tuple[str, str] = ("", "")

    def version(self) -> str:
        """Return the id of the newest snapshot; with a watch also a digest of its state, which changes with every log that is read."""
        from store import open_reader

        return self._version_of(open_reader(self._options["store_url"], self._options["at"]).snapshot)

    def newest(self) -> str:
        """Return the page as HTML; requests that arrive while it is being built wait for it."""
        with self._lock:
            runs = open_selected(self._options)
            version = self._version_of(runs.reader.snapshot)
            if version != self._made[0]:
                self._made = version, page(measure_study(runs, report_request(self._options)), live=version)
                log.info("made the page of snapshot %s", version)
            return self._made[1]

    def _version_of(self, snapshot: str) -> str:
        state = self._options["watch"]
        try:
            return snapshot if state is None else f"{snapshot}+{sha256(state.read_bytes()).hexdigest()[:12]}"
        except OSError as error:
            raise UsageError(f"cannot read the state {state}: {error.strerror}") from error


def make_server(options: Mapping[str, Any], port: int) -> ThreadingHTTPServer:
    """Return a server whose page has been built once, so that errors appear before anything is served.

    port : 0 means any free port.
    Raises UsageError for a port that is in use.
    """
    pages = Pages(options)
    pages.newest()
    try:
        return _Server((LOOPBACK, port), _handler(pages))
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot serve on port {port}: {error}; use --port 0 for any free port") from error


class _Server(ThreadingHTTPServer):
    """A server of few threads, which a client that goes away or does nothing cannot hold or make print a traceback."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._free = BoundedSemaphore(MOST_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; a client too many is hung up on."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then let the next client in."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with one client, such as a reset connection; the others are served on."""
        log.debug("a request failed", exc_info=True)


def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    answers: dict[str, tuple[str, Callable[[], str]]] = {"/": ("text/html", pages.newest), "/snapshot": ("text/plain", pages.version)}

    class Handler(BaseHTTPRequestHandler):
        """Answers GET requests for two paths only."""

        timeout = PATIENCE_S  # of each read, and of the whole answer

        def setup(self) -> None:
            """Hang up on a client that has not asked in time, even if it sends a byte now and then."""
            super().setup()
            self._deadline = Timer(PATIENCE_S, self._hang_up)
            self._deadline.daemon = True
            self._deadline.start()

        def finish(self) -> None:
            """Stop the clock of a client that never asked."""
            self._deadline.cancel()
            super().finish()

        def _hang_up(self) -> None:
            with suppress(OSError):  # it has gone already
                self.connection.shutdown(SHUT_RDWR)

        def do_GET(self) -> None:
            """Answer with the page or the snapshot id."""
            self._deadline.cancel()
            if not self._names_this_machine():
                self._say(HTTPStatus.FORBIDDEN, "text/plain", "this server answers to 127.0.0.1 and localhost only\n")
            elif self.path not in answers:
                self._say(HTTPStatus.NOT_FOUND, "text/plain", "there is / and /snapshot\n")
            else:
                kind, make = answers[self.path]
                try:
                    self._say(HTTPStatus.OK, kind, make())
                except HedgemarkError as error:
                    self._say(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n")

        def _names_this_machine(self) -> bool:
            """Whether the request's Host is this machine; another name that resolves to 127.0.0.1 is an attack (DNS rebinding)."""
            return self.headers.get("Host", "").rsplit(":", 1)[0] in (LOOPBACK, "localhost")

        def _say(self, status: HTTPStatus, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), **SAFE}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            """Log requests through `logging` instead of to stderr."""
            log.debug(format, *values)

    return Handler


SAFE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}

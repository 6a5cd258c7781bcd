"""Ask a server over HTTP: JSON in, JSON out, with retries, limits on time and size, and a key that is never shown.

In: an address, paths, JSON values.  Out: JSON values, or a `ServerError` of one sentence. The key comes from the environment and goes to
this address alone: redirects are not followed, and a loopback address is never asked through a proxy.
"""

import json
import logging
import os
import time
import weakref
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.errors import HedgemarkError, UsageError
from store.shown import printable

if TYPE_CHECKING:
    import httpx  # otherwise imported where it is used: every `produce` command reads this file, and a base install has no httpx

KEY_VARIABLE = "HEDGEMARK_API_KEY"
ATTEMPTS, TIMEOUTS = 6, 2  # of a request that fails, and of one that is not answered at all
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 600.0  # seconds; the pause doubles, unless the server says how long to wait
CONNECT_SECONDS = 10.0
MOST_BYTES = 256_000_000  # a whole vocabulary of 256,000 tokens takes about 30 MB
SHOWN = 120  # characters of what a server said
PASSING = (408, 425, 429, 500, 502, 503, 504)

log = logging.getLogger(__name__)


class ServerError(HedgemarkError):
    """The server does not answer, or its answer cannot be used."""


class NotOfferedError(ServerError):
    """The server does not take a request of this form."""


class _PassingError(ServerError):
    """A failure that may pass, with the seconds to wait if the server said so."""

    def __init__(self, message: str, wait: float | None = None, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.wait, self.timed_out = wait, timed_out


class Client:
    """One server. Safe to use from several threads.

    interruptions : how often the connection failed or was cut; a server that was restarted shows here.
    """

    def __init__(self, url: str, timeout: float = 300.0) -> None:
        self.root = checked_url(url)
        self.interruptions = 0
        self._timeout = timeout
        self._key = _key()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        import httpx

        self._http = httpx.Client(
            base_url=self.root,
            headers=headers,
            trust_env=not _is_loopback(self.root),
            follow_redirects=False,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=None),
        )
        weakref.finalize(self, self._http.close)

    def ask(self, path: str, body: Any = None) -> Any:
        """Return the answer to GET, or to POST where there is a body, after retries if need be.

        Raises NotOfferedError where the server has no such address or refuses the request's form, ServerError for every other failure.
        """
        pause, timeouts = FIRST_PAUSE, 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(path, body)
            except _PassingError as error:
                timeouts += error.timed_out
                wait = pause if error.wait is None else error.wait
                if wait > LONGEST_PAUSE:
                    raise ServerError(f"{error}; it asks to wait {wait:,.0f} s; run the same command again then") from error
                if attempt == ATTEMPTS or timeouts == TIMEOUTS:
                    times = f"{attempt} times" if attempt > 1 else "once"
                    raise ServerError(f"{error} (asked {times}); when it works again, the same command goes on") from error
                log.info("%s; asking again in %.1f s", error, wait)
                time.sleep(wait)
                pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def offers(self, path: str, body: Any = None) -> Any:
        """Return the answer to a request that not every server has; None where this one refuses it. Asked once."""
        try:
            return self._once(path, body)
        except (NotOfferedError, _PassingError):
            return None

    def _once(self, path: str, body: Any) -> Any:
        import httpx

        try:
            status, headers, text = self._exchange(path, body)
        except httpx.TimeoutException:
            self.interruptions += 1
            raise _PassingError(f"{self._named(path)} does not answer within {self._timeout:g} s", timed_out=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.interruptions += 1
            raise _PassingError(f"{self._named(path)} cannot be reached or broke off ({self._clean(str(error))})") from None
        if status in PASSING:
            raise _PassingError(f"{self._named(path)} answers {status}{self._reason(text)}", _retry_after(headers))
        if status in (401, 403):
            raise ServerError(f"{self._named(path)} answers {status}{self._reason(text)}; put its key into ${KEY_VARIABLE}")
        if status in (400, 404, 405, 413, 422, 501):
            raise NotOfferedError(f"{self._named(path)} answers {status}{self._reason(text)}")
        if status != 200:
            raise ServerError(f"{self._named(path)} answers {status}{self._reason(text)}; expected 200")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise _PassingError(f"{self._named(path)} answers something that is not JSON{self._reason(text)}") from None

    def _exchange(self, path: str, body: Any) -> "tuple[int, httpx.Headers, bytes]":
        """Return status, headers and content. A trickle is cut off too: httpx limits only the time between two pieces."""
        import httpx

        method, until, pieces, size = "GET" if body is None else "POST", time.monotonic() + 2 * self._timeout, [], 0
        with self._http.stream(method, path, json=body) as reply:
            for piece in reply.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    raise ServerError(f"{self._named(path)} answers more than {MOST_BYTES:,} bytes")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("a trickle")
            return reply.status_code, reply.headers, b"".join(pieces)

    def _named(self, path: str) -> str:
        return f"the server at {self.root}{path}"

    def _reason(self, text: bytes) -> str:
        """Return what the server said, short and without control characters, in brackets; "" for nothing."""
        reason = text[:2000].decode(errors="replace")
        try:
            answer = json.loads(text)
            answer = answer.get("error", answer.get("message", reason)) if isinstance(answer, dict) else reason
            reason = str(answer.get("message", answer) if isinstance(answer, dict) else answer)
        except (ValueError, RecursionError):
            pass
        reason = self._clean(reason)
        return f" ({reason})" if reason else ""

    def _clean(self, text: str) -> str:
        text = text.replace(self._key, "[redacted]") if self._key else text
        text = " ".join(printable(text.replace("\n", " ")).split())
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def checked_url(url: str) -> str:
    """Return a server's address without `/v1`. Raises UsageError for what is no address, or has a key or a password in it."""
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise UsageError("--url is not an address of a server; expected something like http://127.0.0.1:8080")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"--url has a user, a password or a query in it, which could be stored; put a key into ${KEY_VARIABLE} instead")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


def _key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"${KEY_VARIABLE} is not one line of plain letters; set it again")
    return key


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _retry_after(headers: "httpx.Headers") -> float | None:
    """Return the seconds of a Retry-After header, given as a number or a date; None without one that can be read."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text.replace(".", "", 1).isdecimal() else (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(0.0, seconds)

"""The address of a store: one form of URL for all backends, which never contains credentials.

    ./folder  file:///folder  s3://bucket/prefix?endpoint_url=...&region=...  gs://bucket/prefix
    az://container/prefix?account=...  https://host/path (read only)  hf://namespace/bucket/prefix

In: text.  Out: an `Address`, whose `str` is what messages show.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from schemas.arguments import AN_ADDRESS, read_argument
from schemas.errors import UsageError

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "file": (),
    "s3": ("endpoint_url", "region", "anonymous", "force_path_style"),
    "gs": (),
    "az": ("account",),
    "http": (),
    "https": (),
    "hf": (),
}


@dataclass(frozen=True)
class Address:
    """A parsed store URL. A local store has a `path`, a remote one `bucket` and `prefix`."""

    text: str
    scheme: str
    path: Path | None = None
    bucket: str = ""
    prefix: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def read_only(self) -> bool:
        """Whether the scheme has no way to write."""
        return self.scheme in ("http", "https")

    def __str__(self) -> str:
        return self.text


def parse_address(named: str | Path) -> Address:
    """Return the address that a URL names. Raises UsageError, which lists known schemes or options and never quotes a possible secret."""
    url: str = read_argument("url", named, AN_ADDRESS)
    if not url.strip():
        raise UsageError("store address is empty; expected a path such as ./hedgemark-store, or a URL such as s3://bucket/prefix")
    if "://" not in url:
        return _local(url, url)
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:  # an unmatched bracket, or bytes that are not UTF-8
        raise UsageError(f"store address {url.partition('://')[0]}://... is not a URL: {str(error)[:80]}") from None
    if parts.scheme not in OPTIONS:
        raise UsageError(f"store address {_shown(parts)}: unknown scheme {parts.scheme!r}; known: {', '.join(OPTIONS)}, or a plain path")
    if "@" in parts.netloc:
        raise UsageError(f"store address {_shown(parts)} holds credentials; they belong in the environment or the provider's usual files")
    options = _options(parts)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise UsageError(f"store address {url!r} names the host {parts.netloc!r}; a local store is file:///path or a plain path")
        return _local(url, path)
    if not parts.netloc:
        raise UsageError(f"store address {_shown(parts)} names no bucket or host")
    _check_text(parts.netloc + path)
    return Address(url, parts.scheme, None, parts.netloc, path.strip("/"), options)


def _local(url: str, path: str) -> Address:
    _check_text(path)
    try:
        return Address(url, "file", Path(path).expanduser())
    except RuntimeError:  # ~name, where this machine has no such user
        raise UsageError(f"store address {url!r} begins with the home folder of a user who is not known here") from None


def _check_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"store address {path!r} holds bytes that are not UTF-8 text") from None
    if "\0" in path:
        raise UsageError(f"store address {path!r} holds a NUL byte")


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - set(OPTIONS[parts.scheme]))
    if unknown:  # the message names no values, since one of them may be a secret
        known = ", ".join(OPTIONS[parts.scheme]) or "none"
        raise UsageError(f"store address {_shown(parts)}: unknown option {', '.join(unknown)} for {parts.scheme}; known: {known}")
    if "endpoint_url" in options:
        _check_endpoint(options["endpoint_url"], parts)
    return options


def _check_endpoint(endpoint: str, parts: SplitResult) -> None:
    try:
        server = urlsplit(endpoint)
        valid = server.scheme in ("http", "https") and bool(server.hostname) and server.port != 0
    except ValueError:  # an unmatched bracket or an invalid port
        valid = False
    if not valid:
        raise UsageError(f"store address {_shown(parts)}: endpoint_url is not a server such as https://host:9000")
    if "@" in server.netloc or server.query or server.fragment:
        raise UsageError(
            f"store address {_shown(parts)}: endpoint_url holds credentials or a query; credentials belong in the environment or the "
            "provider's usual files"
        )


def _shown(parts: SplitResult) -> str:
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")

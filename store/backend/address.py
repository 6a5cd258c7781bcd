"""Where a store is: one URL form for every backend, and never a credential in it.

    ./folder  file:///folder  s3://bucket/prefix?endpoint_url=...&region=...  gs://bucket/prefix
    az://container/prefix?account=...  https://host/path (read only)  hf://namespace/bucket/prefix

In: text.  Out: an `Address`, whose `str` is what messages show.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

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
    """A parsed store URL; `bucket` and `prefix` are of a remote store, `path` of a local one."""

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


def parse_address(url: str) -> Address:
    """Return the address a URL names. Raises UsageError with the known schemes or options."""
    if "\0" in url or not url.strip():
        raise UsageError(f"store address {url!r} is empty or holds a NUL byte")
    if "://" not in url:
        return Address(url, "file", Path(url).expanduser())
    parts = urlsplit(url)
    if parts.scheme not in OPTIONS:
        raise UsageError(f"store address {_shown(url)}: unknown scheme {parts.scheme!r}; known: {', '.join(OPTIONS)}, or a plain path")
    if "@" in parts.netloc:
        raise UsageError(f"store address {_shown(url)} holds credentials; they belong in the environment or the provider's usual files")
    if parts.scheme == "file":
        return _local(url, parts.netloc, parts.path)
    options = _options(url, parts.scheme, parts.query)
    if not parts.netloc:
        raise UsageError(f"store address {_shown(url)} names no bucket or host")
    return Address(url, parts.scheme, None, parts.netloc, unquote(parts.path).strip("/"), options)


def _local(url: str, host: str, path: str) -> Address:
    if host not in ("", "localhost"):
        raise UsageError(f"store address {url!r} names the host {host!r}; a local store is file:///path or a plain path")
    return Address(url, "file", Path(unquote(path)))


def _options(url: str, scheme: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(OPTIONS[scheme]))
    if unknown:  # the values are not repeated: one of them may be a secret
        known = ", ".join(OPTIONS[scheme]) or "none"
        raise UsageError(f"store address {_shown(url)}: unknown option {', '.join(unknown)} for {scheme}; known: {known}")
    return options


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")

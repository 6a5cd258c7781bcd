"""Addresses: one form for every backend, no credentials in them, and HTTP that only reads."""

import http.server
import threading
from functools import partial
from pathlib import Path

import icechunk
import pytest
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import HedgemarkError, UsageError
from store import init_store, open_reader, open_writer
from store.backend.address import OPTIONS, parse_address
from store.backend.storage import BACKENDS
from store.upkeep.verify import verify_store


@pytest.mark.parametrize(
    ("url", "scheme", "bucket", "prefix"),
    [
        ("s3://bucket/a/b?endpoint_url=http://127.0.0.1:1&region=eu-west-1", "s3", "bucket", "a/b"),
        ("gs://bucket", "gs", "bucket", ""),
        ("az://container/p?account=me", "az", "container", "p"),
        ("https://host:8080/x/", "https", "host:8080", "x"),
        ("hf://me/bucket/p", "hf", "me", "bucket/p"),
    ],
)
def test_remote_addresses_are_parsed(url, scheme, bucket, prefix):
    """Each scheme gives its bucket, prefix and options."""
    address = parse_address(url)
    assert (address.scheme, address.bucket, address.prefix, address.path) == (scheme, bucket, prefix, None)


@pytest.mark.parametrize("url", ["folder/store", "file:///folder/store", "file://localhost/folder/store", "/a b/c%20d"])
def test_local_addresses_are_paths(url):
    """A plain path and file:// are local, percent signs decoded only in the latter."""
    assert parse_address(url).path == Path(url.removeprefix("file://").removeprefix("localhost"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "known: file, s3"),
        ("s3://key:secret@bucket/x", "holds credentials"),
        ("s3://bucket/x?secret_access_key=hush", "unknown option secret_access_key"),
        ("s3:///x", "names no bucket"),
        ("file://elsewhere/x", "names the host"),
        ("", "is empty"),
        ("a\0b", "NUL"),
        ("file:///a%00b", "NUL"),
        ("s3://bucket/a%00b", "NUL"),
        ("file:///a%ffb", "is not a URL"),
        ("a\udcffb", "not UTF-8"),
        ("http://[::1", "is not a URL"),
        ("s3://key:hush@[bad", "is not a URL"),
        ("s3://[bad", "is not a URL"),
        ("~nobody-of-this-name/store", "not known here"),
        ("s3://bucket/x?endpoint_url=https://key:hush@host:9000", "endpoint_url holds credentials"),
        ("s3://bucket/x?endpoint_url=https%3A%2F%2Fkey%3Ahush%40host", "endpoint_url holds credentials"),
        ("s3://bucket/x?endpoint_url=https://host/?X-Amz-Signature=hush", "endpoint_url holds credentials or a query"),
        ("s3://bucket/x?endpoint_url=http://[::1", "endpoint_url is not a server"),
        ("s3://bucket/x?endpoint_url=http://host:99999999", "endpoint_url is not a server"),
        ("s3://bucket/x?endpoint_url=file:///etc/passwd", "endpoint_url is not a server"),
    ],
)
def test_bad_addresses_are_usage_errors(url, message):
    """A bad address is named with what is known, and a secret in it is not repeated."""
    with pytest.raises(UsageError, match=message) as caught:
        open_reader(url)
    assert "hush" not in str(caught.value) and "secret@" not in str(caught.value)


def test_an_address_longer_than_any_path_is_one_sentence():
    """A path that the system refuses is one of our errors, to create a store and to read one."""
    for function in (init_store, open_reader):
        with pytest.raises(HedgemarkError):
            function("x" * 5000)


def test_every_scheme_has_a_backend():
    """What can be parsed can be opened, and the other way round."""
    assert set(OPTIONS) == set(BACKENDS)


def test_azure_needs_an_account(monkeypatch):
    """An Azure address without an account says where to put it."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_reader("az://container/p")


@pytest.mark.skipif(hasattr(icechunk, "http_storage"), reason="icechunk 2 reads HTTP")
@pytest.mark.parametrize("url", ["https://127.0.0.1:9/x", "hf://me/bucket"])
def test_icechunk_1_says_what_it_lacks(url):
    """A scheme that only icechunk 2 has is refused with the version that is needed."""
    with pytest.raises(UsageError, match="needs icechunk 2"):
        open_reader(url)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A file server that honours Range, as every real one does."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, asked = path.read_bytes(), self.headers.get("Range")
        first, last = 0, len(content) - 1
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.skipif(not hasattr(icechunk, "http_storage"), reason="icechunk 1 has no HTTP")
def test_http_store_is_read_and_never_written(store_url):
    """A store behind a plain file server reads and verifies; writing to it is a usage error."""
    items = tiny_items(n_items=300)
    run = tiny_run(items)
    snapshot = write_runs(store_url, items, [run])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=store_url))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert open_reader(url).snapshot == snapshot and open_reader(url, snapshot).run(run.key.name).digest == run.digest
        assert verify_store(url).problems == []
        for function in (init_store, open_writer):
            with pytest.raises(UsageError, match="read-only"):
                function(url)
    finally:
        server.shutdown()
        server.server_close()

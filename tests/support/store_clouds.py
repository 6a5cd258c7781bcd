"""A stand-in for Google Cloud Storage and Azure Blob Storage: as much of both protocols as Icechunk speaks, objects kept in memory.

Neither has a server that runs everywhere, as S3 has. This one honours conditional writes, as both do; `store.safety.conditional_writes`
relies on it.
Sources : GCS XML API, https://cloud.google.com/storage/docs/xml-api; Azure Blob REST API, version 2019-12-12.
"""

import http.server
import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

GCS_ENTRY = "<Contents><Key>{}</Key><Size>{}</Size><LastModified>{}</LastModified><ETag>{}</ETag></Contents>"
AZURE_ENTRY = (
    "<Blob><Name>{}</Name><Properties><Content-Length>{}</Content-Length><Last-Modified>{}</Last-Modified>"
    "<Content-Type>application/octet-stream</Content-Type><Etag>{}</Etag></Properties></Blob>"
)
GCS_LIST = "<ListBucketResult>{}{}</ListBucketResult>", "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"
AZURE_LIST = "<EnumerationResults><Blobs>{}{}</Blobs><NextMarker/></EnumerationResults>", "<BlobPrefix><Name>{}</Name></BlobPrefix>"

BATCH_PART = "--batch\r\nContent-Type: application/http\r\nContent-ID: {}\r\n\r\nHTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n\r\n"


@contextmanager
def cloud_server(*, closed: bool = False) -> Iterator[str]:
    """Serve an empty cloud on loopback and yield its URL; a closed one lets nobody in."""
    cloud = type("Cloud", (_Cloud,), {"objects": {}, "lock": threading.Lock(), "closed": closed})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), cloud)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Cloud(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]]  # path -> generation, content
    lock: threading.Lock
    closed: bool
    generations = itertools.count(1)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            now = self.objects.get(self.object_path, (0, b""))[0]
            if self.refused(now):
                return self.answer(409 if self.headers.get("If-None-Match") else 412)
            self.objects[self.object_path] = (next(self.generations), content)
        self.answer(201 if self.azure else 200)

    def do_GET(self) -> None:
        if self.closed:
            return self.answer(403)
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query or "comp" in query:
            return self.list(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        if self.object_path not in self.objects:
            return self.answer(404)
        content, asked = self.objects[self.object_path][1], self.headers.get("Range") or self.headers.get("x-ms-range")
        if not asked or self.command == "HEAD":
            return self.answer(200, content)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last or len(content)) + 1]
        self.answer(206, part, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"})

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        with self.lock:
            self.answer(404 if self.objects.pop(self.object_path, None) is None else 202 if self.azure else 204)

    def do_POST(self) -> None:
        """Delete a batch of blobs, as Azure does (Blob Batch): a request in each part, and a response in each part of the answer."""
        batch = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parts = []
        for number, target in enumerate(re.findall(r"^DELETE (\S+) HTTP", batch, re.MULTILINE)):
            with self.lock:
                gone = self.objects.pop(unquote(urlsplit(target).path), None)
            parts.append(BATCH_PART.format(number, "202 Accepted" if gone else "404 Not Found"))
        self.answer(202, "".join([*parts, "--batch--\r\n"]).encode(), {"Content-Type": "multipart/mixed; boundary=batch"})

    @property
    def object_path(self) -> str:
        return unquote(urlsplit(self.path).path)

    @property
    def azure(self) -> bool:
        return "x-ms-version" in self.headers

    def refused(self, now: int) -> bool:
        generation, tag = self.headers.get("x-goog-if-generation-match"), self.headers.get("If-Match")
        exists = self.headers.get("If-None-Match") == "*" and now > 0
        return exists or (generation is not None and int(generation) != now) or (tag is not None and tag != f'"{now}"')

    def list(self, prefix: str, delimiter: str) -> None:
        top = f"{self.object_path.rstrip('/')}/"
        (document, group), entry = (AZURE_LIST, AZURE_ENTRY) if self.azure else (GCS_LIST, GCS_ENTRY)
        date = formatdate(usegmt=True) if self.azure else time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        entries, groups = [], set()
        for path, (generation, content) in sorted(self.objects.items()):
            name = path.removeprefix(top)
            first, deeper, _ = name.removeprefix(prefix).partition(delimiter or "\0")
            if path.startswith(top + prefix) and deeper:
                groups.add(group.format(escape(f"{prefix}{first}{delimiter}")))
            elif path.startswith(top + prefix):
                entries.append(entry.format(escape(name), len(content), date, f'"{generation}"'))
        body = document.format("".join(entries), "".join(sorted(groups)))
        self.answer(200, f'<?xml version="1.0" encoding="utf-8"?>{body}'.encode(), {"Content-Type": "application/xml"})

    def answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        generation = self.objects.get(self.object_path, (0, b""))[0]
        self.send_response(status)
        known = {"Last-Modified": formatdate(usegmt=True), "ETag": f'"{generation}"', "x-goog-generation": str(generation)}
        for name, value in {**known, "Content-Length": str(len(content)), **(headers or {})}.items():  # `send_response` adds Date
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

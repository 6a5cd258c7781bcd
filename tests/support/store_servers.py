"""S3 servers on loopback for the store's tests: SeaweedFS (a good one) and rclone (one that ignores conditional writes).

`python tests/support/store_servers.py COMMAND ARGUMENT...` runs a command beside SeaweedFS, with the address of an empty store as its
last argument.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import pytest
from filelock import FileLock
from store_ports import GRPC, reserve_ports

ACCESS_KEY, SECRET_KEY = "hedgemark-test", "loopback-only"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}
PARTS = ("master", "volume", "filer", "s3")
START_S = 60
STARTS = 3
BUCKET = "hedgemark-tests"
TAIL_LINES = 25


class ServerError(RuntimeError):
    """A server that did not come up, or went away; the message ends with its log's last lines."""


class SeaweedFS:
    """A SeaweedFS server in a folder, with one bucket; it can be killed and started again on the same ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._reserved: FileLock | None = None
        self.ports: dict[str, int] = {}
        keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {"name": "test", "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the server, on ports of its own the first time, and wait until a write goes through. Raises ServerError."""
        if self._reserved is None:
            self._reserved, numbers = reserve_ports(len(PARTS))
            self.ports = dict(zip(PARTS, numbers, strict=True))
        with (self.folder / "log").open("ab") as log:
            command = ["weed", "server", *self._arguments()]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        _wait_until(self._ready, self.process, self.folder / "log")

    def kill(self) -> None:
        """End the server as a crash would; asked politely, it takes twenty seconds to drain."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        for port in self.ports.values():
            for left in [*Path("/tmp").glob(f"seaweedfs-*-{port}.sock"), *Path("/tmp").glob(f"seaweedfs-*-{port + GRPC}.sock")]:
                left.unlink()

    def close(self) -> None:
        """Kill the server and give its ports to others."""
        if self._reserved is not None:
            self.kill()
            self._reserved.release()

    def new_address(self) -> str:
        """Return the address of a store that is not there yet.

        It is a prefix, not a bucket: for each bucket the server takes seven volumes, and at 50 of them it refused every write.
        """
        return f"s3://{BUCKET}/{uuid4().hex}?endpoint_url=http://127.0.0.1:{self.ports['s3']}"

    def overwrite(self, folder: str, content: bytes) -> None:
        """Put other content into every object of a folder of the bucket, behind S3's back."""
        url = f"http://127.0.0.1:{self.ports['filer']}/buckets/{BUCKET}{folder}/"
        listing = urllib.request.Request(f"{url}?limit=10000", headers={"Accept": "application/json"})
        with urllib.request.urlopen(listing, timeout=20) as answer:
            names = [entry["FullPath"].rpartition("/")[2] for entry in json.load(answer)["Entries"]]
        for name in names:
            urllib.request.urlopen(urllib.request.Request(url + name, data=content, method="PUT"), timeout=20).close()

    def _arguments(self) -> list[str]:
        arguments = [f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
        arguments += [f"-{name}.port={port}" for name, port in self.ports.items()]
        arguments += [f"-{name}.port.grpc={port + GRPC}" for name, port in self.ports.items()]
        arguments += ["-filer", "-s3", f"-s3.config={self.folder / 's3.json'}"]
        arguments += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # fixed ports, on which a second server would fail
        # By default it stops writing when one per cent of the disk is free, which on a full CI machine is soon.
        return [*arguments, "-master.volumeSizeLimitMB=64", "-volume.max=100", "-volume.minFreeSpace=16MiB"]

    def _ready(self) -> bool:
        """Return whether S3 answers and a write goes all the way from the filer to a volume, which come up one after another."""
        url = f"http://127.0.0.1:{self.ports['filer']}/buckets/{BUCKET}/"
        return _answers(f"http://127.0.0.1:{self.ports['s3']}") and _send(url, "POST") and _send(f"{url}ready", "PUT")


def start_seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> SeaweedFS:
    """Return a server that takes writes; one that does not come up is started anew in another place, a few times."""
    for left in reversed(range(STARTS)):
        server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
        try:
            server.start()
            break
        except ServerError:
            server.close()
            if not left:
                raise
    return server


@contextmanager
def rclone_server(folder: Path) -> Iterator[str]:
    """Serve a folder by `rclone serve s3`, which ignores If-None-Match, and yield a store's address on it."""
    (folder / "bucket").mkdir(parents=True)
    reserved, [port] = reserve_ports(1)
    command = ["rclone", "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    log_path = folder.parent / "rclone.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until(lambda: _answers(f"http://127.0.0.1:{port}"), process, log_path)
        yield f"s3://bucket/store?endpoint_url=http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
        reserved.release()


@pytest.fixture(scope="session")
def seaweedfs_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SeaweedFS]]:
    """Keep the servers of this process; the last one is in use, those before it have died."""
    servers: list[SeaweedFS] = []
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def seaweedfs(seaweedfs_servers: list[SeaweedFS], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """Return this process's S3 server. A test in which it dies fails with the log's end; the next test has a new one."""
    need("weed")
    if not seaweedfs_servers or not seaweedfs_servers[-1].running:
        seaweedfs_servers.append(start_seaweedfs(tmp_path_factory))
    server = seaweedfs_servers[-1]
    yield server
    if not server.running:
        pytest.fail(f"the S3 server died during this test; its log ends:\n{_tail(server.folder / 'log')}")


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the servers' credentials where the AWS chain looks first."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def need(program: str) -> None:
    """Skip a test whose server is not installed, unless every dependency is required."""
    if shutil.which(program) is None:
        if os.environ.get("REQUIRE_ALL_DEPS"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"{process.args!r} did not come up (exit code {process.returncode}); its log ends:\n{_tail(log)}")
        time.sleep(0.1)
    if process.poll() is not None:  # then somebody else answered on its ports
        raise ServerError(f"{process.args!r} ended with {process.returncode}; its log ends:\n{_tail(log)}")


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:  # it answers, and wants credentials
        return True
    except OSError:
        return False
    return True


def _send(url: str, method: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=b"x" if method == "PUT" else None, method=method), timeout=10).close()
    except urllib.error.HTTPError as error:
        return error.code == HTTPStatus.CONFLICT  # it is there already, after a restart
    except OSError:
        return False
    return True


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def _run_beside(command: list[str]) -> int:
    need("weed")
    with tempfile.TemporaryDirectory() as folder:
        server = SeaweedFS(Path(folder))
        server.start()
        try:
            return subprocess.run([*command, server.new_address()], env={**os.environ, **CREDENTIALS}, check=False).returncode
        finally:
            server.close()


if __name__ == "__main__":
    sys.exit(_run_beside(sys.argv[1:]))

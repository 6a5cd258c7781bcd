"""S3 servers on loopback for the store's tests: SeaweedFS (a good one) and rclone (one that ignores conditional writes)."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ACCESS_KEY, SECRET_KEY = "hedgemark-test", "loopback-only"
START_S = 60


class SeaweedFS:
    """A SeaweedFS server in a folder; it can be killed and started again on the same ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {"name": "test", "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        arguments = [f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.max=50"]
        arguments += [f"-{name}.port={port}" for name, port in self.ports.items()]
        arguments += [f"-{name}.port.grpc={port + 10_000}" for name, port in self.ports.items()]
        arguments += ["-filer", "-s3", f"-s3.config={self.folder / 's3.json'}", "-master.volumeSizeLimitMB=64"]
        arguments += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # fixed ports, on which a second server would fail
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(["weed", "server", *arguments], stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        for part in ("s3", "filer"):  # on a busy machine S3 was seen to answer before the filer, which makes the buckets
            _wait_for(f"http://127.0.0.1:{self.ports[part]}", self.process)

    def kill(self) -> None:
        """End the server as a crash would; asked politely, it takes twenty seconds to drain."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        for port in self.ports.values():
            for left in [*Path("/tmp").glob(f"seaweedfs-*-{port}.sock"), *Path("/tmp").glob(f"seaweedfs-*-{port + 10_000}.sock")]:
                left.unlink()

    def make_bucket(self, name: str) -> str:
        """Create a bucket and return the address of a store in it."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['filer']}/buckets/{name}/", method="POST")
        urllib.request.urlopen(request, timeout=20).close()
        return f"s3://{name}/store?endpoint_url={self.endpoint}"


@contextmanager
def rclone_server(folder: Path) -> Iterator[str]:
    """Serve a folder by `rclone serve s3`, which ignores If-None-Match, and yield a store's address on it."""
    (folder / "bucket").mkdir(parents=True)
    [port] = _free_ports(1)
    command = ["rclone", "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    with (folder.parent / "rclone.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}", process)
        yield f"s3://bucket/store?endpoint_url=http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """Start one SeaweedFS server for all tests of this process."""
    need("weed")
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the servers' credentials where the AWS chain looks first."""
    for name, value in (("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)


def need(program: str) -> None:
    """Skip a test whose server is not installed, unless every dependency is required."""
    if shutil.which(program) is None:
        if os.environ.get("REQUIRE_ALL_DEPS"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:  # it answers, and wants credentials
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not come up")


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, and whose number plus 10,000 is free too (SeaweedFS puts gRPC there)."""
    sockets = []
    ports: list[int] = []
    candidate = 20_000 + os.getpid() % 15_000
    while len(ports) < count:
        candidate += 1
        pair = [socket.socket(), socket.socket()]
        try:
            for one, port in zip(pair, (candidate, candidate + 10_000), strict=True):
                one.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            sockets += pair
        ports.append(candidate)
    for one in sockets:
        one.close()
    return ports

"""The served page: this machine only, read-only, and anew on every snapshot."""

import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner
from first_line import after_first_line
from report_stores import FEW, OPTIONS, family, quiz, write

from analyzer.cli.main import main
from analyzer.report import serve
from analyzer.report.serve import make_server
from store import open_reader, open_writer


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """A server of a store with one model; server_address says where."""
    items = quiz("quiz", 60)
    url = write(str(tmp_path / "store"), [(items, family(items, "first", 0, levels=FEW))])
    with make_server(OPTIONS | {"store_url": url}, 0) as server:
        server.store_url = url
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: Any, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str]:
    """Return status and text."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def add(url: str, model: str) -> None:
    items = quiz("quiz", 60)
    with open_writer(url) as writer:
        for run in family(items, model, 1, levels=FEW):
            writer.write(items, run)


def test_it_listens_on_loopback_alone(served: Any) -> None:
    """No other machine can reach it, and no other page can read it under a name of its own."""
    assert served.server_address[0] == "127.0.0.1"
    assert get(served, Host="evil.example")[0] == 403
    assert get(served, Host="localhost")[0] == 200


def test_nothing_can_be_written(served: Any) -> None:
    """Other methods are refused, other paths are not there, and the store stays as it is."""
    before = open_reader(served.store_url).snapshot
    assert [get(served, "/", method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3
    assert [get(served, path)[0] for path in ("/report.html", "/../pyproject.toml", "/?x")] == [404] * 3
    assert open_reader(served.store_url).snapshot == before


def test_a_new_snapshot_gives_a_new_page(served: Any) -> None:
    """The page says which snapshot it shows, and is made anew when there is another."""
    before = get(served, "/snapshot")[1]
    assert f'data-live="{before}"' in get(served)[1]
    add(served.store_url, "second")
    after = get(served, "/snapshot")[1]
    page = get(served)[1]
    assert after != before and f'data-live="{after}"' in page and "second" in page


@pytest.mark.browser
def test_an_open_page_reloads_and_keeps_its_view(served: Any, open_page: Any) -> None:
    """Runs that land while somebody looks appear, under the filters that were set."""
    opened = open_page(f"http://127.0.0.1:{served.server_port}/", "#metric=kl").drawn()
    add(served.store_url, "second")
    opened.page.wait_for_selector(".chip[data-model=second]", timeout=60_000)
    assert opened.drawn().page.locator("#metric").input_value() == "kl"
    assert {address.split("/")[2] for address in opened.requests} == {f"127.0.0.1:{served.server_port}"}


def test_a_taken_port_and_a_lost_store_are_errors_of_one_line(served: Any, tmp_path: Path) -> None:
    """Both end the command before anything is served."""
    taken = CliRunner().invoke(main, ["serve", "--store", served.store_url, "--port", str(served.server_port)])
    assert taken.exit_code == 2 and "cannot serve on port" in taken.output
    lost = CliRunner().invoke(main, ["serve", "--store", str(tmp_path / "nowhere"), "--port", "0"])
    assert lost.exit_code == 5 and len(after_first_line(lost.output)) == 1


def connect(server: Any) -> socket.socket:
    return socket.create_connection((serve.LOOPBACK, server.server_port), timeout=30)


def test_a_client_that_resets_its_connection_is_no_traceback(served: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Closed in the middle of the request or of the answer, with a reset; nothing is printed and the next client is served."""
    for words in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        client = connect(served)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(words)
        client.close()
    assert get(served, "/snapshot")[0] == 200
    assert capfd.readouterr().err == ""


def test_slow_clients_are_hung_up_on_and_threads_are_few(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that send a byte now and then lose their connection; more of them than there are threads keep nobody else out for long."""
    monkeypatch.setattr(serve, "PATIENCE_S", 0.5)
    before = threading.active_count()
    clients = [connect(served) for _ in range(3 * serve.MOST_CLIENTS)]
    deadline = time.monotonic() + 60
    while clients and time.monotonic() < deadline:
        assert threading.active_count() - before <= 2 * serve.MOST_CLIENTS + 2  # each has a thread and a clock
        for client in list(clients):
            try:
                client.sendall(b"G")
                client.settimeout(0.001)
                gone = client.recv(1) == b""
            except TimeoutError:
                gone = False
            except OSError:
                gone = True
            if gone:
                client.close()
                clients.remove(client)
    assert not clients
    assert get(served, "/snapshot")[0] == 200

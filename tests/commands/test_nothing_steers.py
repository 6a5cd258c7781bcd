"""Names from a stranger's store, file or folder are shown, and never steer the terminal or document that shows them."""

import io
import json
import logging
import os
import re
import resource
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from store_tiny import tiny_items, tiny_run, write_runs

import analyzer.cli.main
import store.cli.main
from store import init_store
from store.command import log_to_stderr
from store.shown import Shown, json_text, lines, message, printable

CLIPBOARD, TITLE, RED, TURNED = "\x1b]52;c;cm0gLXJm\x07", "\x1b]0;owned\x1b\\", "\x1b[31;1m", "\u202egnp.exe"
EVIL = f"m{CLIPBOARD}{TITLE}{RED}{TURNED}\x9b2J\u2066\r\nError: gate passed\u2028\x08\x00|<img src=x>[a](http://b)$x_y%"
FORBIDDEN = {chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp")} - {"\n", "\t"}
FORBIDDEN |= set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
ONE_MODEL = ("--level", "w3a16-g128", "--hub-dataset", f"{EVIL}=me/quiz")
MAINS = {"analyze": analyzer.cli.main.main, "store": store.cli.main.main}


def harmless(text: str) -> bool:
    """Whether nothing in a text steers, and no line of it is the one that a name tried to begin."""
    return not FORBIDDEN & set(text) and not any(line.startswith("Error: gate passed") for line in text.split("\n"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = str(tmp_path_factory.mktemp("evil") / "store")
    init_store(address)
    items = tiny_items(EVIL, n_items=60)
    made = (("dense", "-"), ("rtn", "w4a16-g128"), ("rtn", "w3a16-g128"), (EVIL, "-"))
    runs = [tiny_run(items, model=EVIL, method=method, level=level, weights_hash="e" * 64) for method, level in made]
    write_runs(address, items, [*runs, tiny_run(items, model=EVIL, weights_hash="f" * 64)])  # another model of the same name
    return address


def run(*line: str) -> Result:
    return CliRunner().invoke(MAINS[line[0]], line[1:])


LINES = [
    *(("analyze", command, "--format", form) for command in ("sets", "compare") for form in ("table", "markdown", "latex", "json", "csv")),
    ("analyze", "sets", "--by", "subject"),
    ("analyze", "gate", "--limit", "flips=0.9"),
    ("analyze", "report", "--format", "md"),
    ("analyze", "report", "--format", "latex"),
    ("analyze", "sets", "--model", "absent"),
    ("analyze", "-v", "sets", "--model", EVIL),
    ("analyze", "sets", "--task", f"absent{EVIL}"),
    *(("store", "ls", "--format", form) for form in ("table", "json", "csv")),
    *(("store", command) for command in ("show", "log", "verify")),
    ("store", "show", "absent"),
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line).replace(EVIL, "EVIL"))
def test_no_command_hands_a_name_to_the_terminal(line: tuple[str, ...], url: str) -> None:
    """Tables, Markdown, LaTeX, JSON, CSV, errors and logs alike."""
    done = run(*line, "--store", url)
    assert done.exit_code in (0, 1, 2, 3, 5), done.output
    assert harmless(done.stdout), repr(done.stdout[:2000])
    assert harmless(done.stderr), repr(done.stderr)


@pytest.mark.parametrize("words", [("compare",), ("gate", "--limit", "flips=0.9")])
def test_colours_let_no_name_through(words: tuple[str, ...], url: str) -> None:
    """Coloured text passes the filter of the stream, so every name in it is harmless before."""
    done = run("analyze", *words, "--color", "always", "--store", url)
    ours = re.compile(r"\x1b\[(3[123]|0)m")
    assert ours.search(done.stdout)
    for told in (done.stdout, done.stderr):
        assert harmless(ours.sub("", told)), repr(told)


def test_json_keeps_every_name(url: str) -> None:
    """What steers is escaped there, so that a program reads the name as it is."""
    shown = json.loads(run("store", "ls", "--format", "json", "--store", url).stdout)
    assert {row["model"] for row in shown} == {f"{EVIL}@{end * 8}" for end in "ef"}
    assert json.loads(json_text({"a": EVIL, "tag\U000e0041": 1})) == {"a": EVIL, "tag\U000e0041": 1}


def test_no_document_is_steered(url: str, tmp_path: Path) -> None:
    """JUnit XML is XML, Markdown and results for the Hub have no line, cell or link of a name's making, and the page no turned text."""
    paths = {name: tmp_path / name for name in ("gate.xml", "gate.md", "hub.yaml", "page.html", "tables.md", "tables.tex")}
    gate = ("--junit", str(paths["gate.xml"]), "--markdown", str(paths["gate.md"]))
    assert run("analyze", "gate", "--store", url, "--limit", "flips=0.001", *gate).exit_code in (1, 3)
    for_hub = (*ONE_MODEL, "--eval-results", str(paths["hub.yaml"]))
    assert run("analyze", "gate", "--store", url, "--limit", "flips=0.001", *for_hub).exit_code in (1, 3)
    for form, name in (("html", "page.html"), ("md", "tables.md"), ("latex", "tables.tex")):
        assert run("analyze", "report", "--store", url, "--format", form, "--out", str(paths[name])).exit_code == 0
    for path in paths.values():
        text = path.read_text(encoding="utf-8")
        assert harmless(text) or path.suffix == ".html", path.name
        assert not FORBIDDEN & set(text), path.name
        assert path.suffix != ".md" or ("<img" not in text and "](http" not in text), path.name
    assert ET.parse(paths["gate.xml"]).getroot().tag == "testsuites"


def test_a_stream_obeys_nothing() -> None:
    """Colours and titles go, what else steers is `?`; a progress bar may begin its line anew, in front only."""
    under = io.StringIO()
    stream = Shown(under)
    stream.write(f"\r 50%|{RED}####\x1b[0m{TITLE}|")
    stream.write(f"a\rb{TURNED}\x1b\n")
    assert under.getvalue() == "\r 50%|####|a?b?gnp.exe?\n"
    with pytest.raises(TypeError):
        stream.write(b"\x1b")  # type: ignore[arg-type]
    assert not hasattr(stream, "buffer")


def test_what_people_write_stays() -> None:
    """Letters of every script, emoji, tabs and the signs of our own tables pass as they are."""
    text = "Δ ±0.1 “Größe”\u00a0a\u200db 日本語 עברית العربية e\u0301 😀\tx\n"
    assert lines(text) == text and printable(text.strip().replace("\t", "")) == text.strip().replace("\t", "")
    assert message("one\ntwo") == "one\n  two"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    root.handlers = handlers
    root.setLevel(level)  # which also forgets what loggers remember of the level


def test_no_log_record_begins_a_line_of_its_own(root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in a log record stays within its record."""
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    root_logger.handlers = []
    log_to_stderr(logging.INFO)
    logging.getLogger("store.test").warning("found %s", EVIL)
    assert harmless(told.getvalue()) and told.getvalue().startswith("found m")


@pytest.mark.producer
def test_no_progress_bar_is_steered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The label of a bar is a model's name."""
    from producer.machine.progress import progress_bar

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    told = Terminal()
    monkeypatch.setattr(sys, "stderr", told)
    with progress_bar(3, EVIL, "item") as bar:
        bar.update(1)
    assert harmless(told.getvalue().replace("\r", ""))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_encoding_passes_the_filter(encoding: str, url: str) -> None:
    """Where the terminal takes ASCII alone, click would write past a wrapped stream."""
    code = "from store.cli.main import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    line = [sys.executable, "-c", code, "ls", "--format", "csv", "--store", url]
    done = subprocess.run(line, env=environment, capture_output=True, check=True)
    assert harmless(done.stdout.decode(encoding)) and b"rtn" in done.stdout


OLD = "an older file"
WRITERS: list[tuple[str, tuple[str, ...]]] = [
    ("r.html", ("analyze", "report", "--out")),
    ("r.md", ("analyze", "report", "--format", "md", "--out")),
    ("g.xml", ("analyze", "gate", "--limit", "flips=0.9", "--junit")),
    ("g.md", ("analyze", "gate", "--limit", "flips=0.9", "--markdown")),
    ("p.json", ("analyze", "calibrate", "--level", "w3a16-g128", "--allow-unreliable", "--out")),
    ("x.zip", ("store", "export")),
    ("x.parquet", ("store", "export")),
]


@pytest.mark.parametrize(("name", "line"), WRITERS, ids=[name for name, _ in WRITERS])
def test_an_older_file_survives_a_full_disk(name: str, line: tuple[str, ...], url: str, tmp_path: Path) -> None:
    """A file that cannot be completed leaves the older one as it was, nothing beside it, one sentence and exit code 5."""
    path = tmp_path / name
    path.write_text(OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        done = run(*line, str(path), "--store", url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.exit_code == 5, done.stderr
    assert f"HedgemarkError: {path} cannot be written" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert path.read_text() == OLD and [each.name for each in tmp_path.iterdir() if each.is_file()] == [name]


def test_a_link_and_a_device_are_written_through(url: str, tmp_path: Path) -> None:
    """A link keeps pointing where it does, permissions stay, and a device is not replaced by a file."""
    real, link, device = tmp_path / "real.md", tmp_path / "link.md", tmp_path / "null"
    real.write_text(OLD)
    real.chmod(0o640)
    link.symlink_to(real)
    device.symlink_to(os.devnull)
    for path in (link, device):
        assert run("analyze", "report", "--format", "md", "--store", url, "--out", str(path)).exit_code == 0
    assert link.is_symlink() and real.read_text().startswith("# Hedgemark") and real.stat().st_mode & 0o777 == 0o640
    assert device.is_symlink() and Path(os.devnull).is_char_device()

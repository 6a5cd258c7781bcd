"""What a stored run tells about its maker: no absolute path, user name, token or query, and still the command that it was."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run

from schemas.private import CIRCUMSTANCES, shareable, shareable_command, shareable_message, without_circumstances
from schemas.run import Environment
from store import open_reader, open_writer
from store.cli.main import main
from store.upkeep.history import history


@pytest.fixture(autouse=True)
def alice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a project below the home folder of somebody called alice."""
    home = tmp_path / "home" / "alice"
    (home / "project" / "models").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.chdir(home / "project")
    return home


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--model", "--model"),
        ("ref-s", "ref-s"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("models/merged", "models/merged"),
        ("{home}/project/models/merged", "models/merged"),
        ("{home}/project", "."),
        ("{home}/store", "~/store"),
        ("~/store", "~/store"),
        ("../store", "~/store"),
        ("../../bob/store", ".../store"),
        ("/mnt/alice/models/merged", ".../merged"),
        ("--store=/mnt/alice/store", "--store=.../store"),
        ("/mnt/alice/items.json:2x64", ".../items.json:2x64"),
        ("w4a16-g128", "w4a16-g128"),
        ("0:0.5:0.1", "0:0.5:0.1"),
        ("s3://bucket/runs?endpoint_url=http://10.0.0.1:9000&region=eu", "s3://bucket/runs"),
        ("https://alice:secret@example.org:8443/store?X-Amz-Signature=abc#part", "https://example.org:8443/store"),
        ("~/alice/store", "~/[redacted]/store"),
        ("/mnt/data/alice", ".../[redacted]"),
        ("s3://bucket/alice/runs", "s3://bucket/[redacted]/runs"),
        ("data/alice/items.json", "data/[redacted]/items.json"),
        ("file:///mnt/alice/store", "file:.../store"),
        ("hf_abcdefghijklmnop", "[redacted]"),
        ("models/hf_abcdefghijklmnop/x", "models/[redacted]/x"),
        ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
        ("http://[::1", "[redacted]"),
    ],
)
def test_an_argument_keeps_what_means_something_elsewhere(argument: str, shown: str, alice: Path) -> None:
    """Names of models, levels, buckets and files stay; where they lie on this machine, whose it is and its keys do not."""
    assert shareable(argument.format(home=alice)) == shown


def test_a_command_has_no_trace_of_its_machine(alice: Path) -> None:
    """The whole line, quoted as a shell takes it."""
    line = shareable_command("produce", ["--model", str(alice / "my models" / "m"), "--store", "s3://b/p?token=hf_abcdefghijkl"])
    assert line == "produce --model '~/my models/m' --store s3://b/p"
    assert "alice" not in line and os.sep + "home" not in line


def test_a_message_keeps_its_words(alice: Path) -> None:
    """Paths, tokens and queries in a commit message go, and what was fit to be shared stays the same."""
    text = f"import table {alice}/logits.csv from https://alice:secret@example.org/x?token=1 with hf_abcdefghijklmnop, 3 runs"
    shown = "import table ~/logits.csv from https://example.org/x with [redacted], 3 runs"
    assert shareable_message(text) == shareable_message(shown) == shown


def test_an_import_tells_nothing_of_its_maker(alice: Path) -> None:
    """Neither the commit's message nor a run's origin has a token or a user name that a file or folder is called by."""
    folder = alice / "alice"
    folder.mkdir()
    rows = "id,answer,logit_A,logit_B\n" + "".join(f"{i},A,1.5,{i}\n" for i in range(5))
    (folder / "hf_abcdefghijklmnop.csv").write_text(rows)
    url = str(alice / "store")
    line = ["import", "table", str(folder / "hf_abcdefghijklmnop.csv"), "--model", "m", "--task", "t", "--store", url]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    with open_writer(url) as writer:
        writer.write(tiny_items(), tiny_run(tiny_items()))
        writer.commit(f"from {folder}")
    messages = history(url)["message"].to_list()
    assert messages == ["from ~/[redacted]", "import table [redacted]", "create the store", "Repository initialized"]
    assert open_reader(url).catalog["origin"].sort()[-1].startswith("table [redacted] sha256:")


def test_private_runs_keep_versions_and_what_they_are_judged_by() -> None:
    """Device, host, command and times go; truncated and dropped items, notes and post-conditions stay, since verdicts need them."""
    env = Environment(
        libraries={"torch": "2.13.0"}, device="cpu: some processor", driver="CUDA 13", host_os="Linux-6", command="produce", created="2026",
        duration_s=2.0, tokens=5, peak_memory_bytes=7, parameters=3, truncated_items=2, dropped_items=1, notes=("a note",),
        post_conditions={"sparsity": 0.5}, throughput={"items_per_s": 1.0},
    )  # fmt: skip
    left = without_circumstances(env)
    assert left == Environment(
        libraries={"torch": "2.13.0"}, tokens=5, parameters=3, truncated_items=2, dropped_items=1, notes=("a note",),
        post_conditions={"sparsity": 0.5},
    )  # fmt: skip
    assert set(CIRCUMSTANCES) <= set(Environment.model_fields)

"""Arguments that no one can mean end with exit code 2 and one sentence; none is taken for something else."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

import analyzer.cli.main
from store import init_store


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = str(tmp_path_factory.mktemp("refused") / "store")
    init_store(address)
    items = tiny_items(n_items=40)
    write_runs(address, items, [tiny_run(items), tiny_run(items, method="rtn", level="w4a16-g128")])
    return address


def refused(url: str, *line: str) -> str:
    done = CliRunner().invoke(analyzer.cli.main.main, [*line, "--store", url])
    assert done.exit_code == 2 and done.stdout == "" and len(done.stderr) < 600, done.output
    return done.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-0.1", "1.1"])
def test_a_tolerance_that_is_no_share(value: str, url: str, tmp_path: Path) -> None:
    """With NaN every comparison is false, so that a loss of any size would count as none."""
    assert "tolerance of coverage" in refused(url, "transfer", "--coverage-tolerance", value)
    mix = tmp_path / "mix.toml"
    mix.write_text("[subjects]\ns0 = 0.5\ns1 = 0.5\n")
    assert "tolerance of coverage" in refused(url, "transfer", "--coverage-tolerance", value, "--subject-mix", str(mix))


@pytest.mark.parametrize("text", ["1" * 5_000, "seed:" + "1" * 5_000, "0" * 21])
def test_a_split_of_thousands_of_digits(text: str, url: str) -> None:
    """Python refuses to read such a number."""
    assert "is not valid; expected all" in refused(url, "sets", "--split", text)


def test_a_limit_of_400_digits(url: str, tmp_path: Path) -> None:
    """TOML has whole numbers of any size, floats do not."""
    policy = tmp_path / "policy.toml"
    policy.write_text(f"[limits]\nflips = {'9' * 400}\n")
    assert "is not a finite number" in refused(url, "gate", "--policy", str(policy))


@pytest.mark.parametrize("names", [("flips=0.1", "flips=0.2"), ("task.urn.flips=0.1", "flips=0.3", "task.urn.flips=0.2")])
def test_a_limit_given_twice(names: tuple[str, ...], url: str) -> None:
    """One of the two would not hold, and nothing would say which."""
    assert "is given twice" in refused(url, "gate", *(word for name in names for word in ("--limit", name)))


@pytest.mark.parametrize("other", ["--markdown", "--eval-results"])
@pytest.mark.parametrize("spelling", ["{}/x", "{}/./x", "{}/link"])
def test_two_reports_in_one_file(other: str, spelling: str, url: str, tmp_path: Path) -> None:
    """The second would take the place of the first, however the path is spelled."""
    (tmp_path / "link").symlink_to(tmp_path / "x")
    words = ("gate", "--limit", "flips=0.9", "--junit", str(tmp_path / "x"), other, spelling.format(tmp_path))
    assert "two reports would be written to one file" in refused(url, *words)
    assert not (tmp_path / "x").exists()

"""The Docker files agree with the project: versions, packages, extras, entry point."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs" / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


class Instruction(NamedTuple):
    """One line of a Docker file, such as COPY and its words."""

    name: str
    text: str


def instructions(file: Path) -> list[Instruction]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return [Instruction(*line.split(" ", 1)) for line in lines]


def texts(file: Path, name: str) -> list[str]:
    return [instruction.text for instruction in instructions(file) if instruction.name == name]


def test_there_is_one_for_cpus_and_one_for_gpus_and_the_page_names_both() -> None:
    """Every instruction is one that Docker knows, and docs/install.md says how to build each file."""
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENV", "VOLUME", "ENTRYPOINT", "CMD"}
    assert [file.name for file in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]
    page = (ROOT / "docs" / "install.md").read_text()
    for file in FILES:
        assert {instruction.name for instruction in instructions(file)} <= known
        assert f"docker build --file docs/docker/{file.name}" in page and f"--file docs/docker/{file.name}" in file.read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_versions_are_the_tested_ones(file: Path) -> None:
    """torch is that of constraints.txt and comes first, the rest is held to that file, and the project takes the image's Python."""
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    torch, rest = [run for run in texts(file, "RUN") if run.startswith("pip install")]
    assert torch.split()[-1] in constraints and torch.split()[-1].startswith("torch==")
    assert "--constraint constraints.txt" in rest
    (image,) = texts(file, "FROM")
    minor = int(re.match(r"python:3\.(\d+)-slim", image)[1])
    least, below = map(int, re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"]))
    assert least <= minor < below


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_copied_is_what_the_wheel_is_made_of(file: Path) -> None:
    """Every package and every file that pyproject.toml names is copied, and nothing that is not there."""
    copied = {word for text in texts(file, "COPY") for word in text.split()[:-1]}
    project = PROJECT["project"]
    needed = {*PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], project["readme"], *project["license-files"]}
    assert copied == needed | {"pyproject.toml", "constraints.txt"}
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_runs_the_command_as_a_user_without_rights(file: Path) -> None:
    """The entry point is a command of the project, the extras exist, and the last user is not root."""
    assert json.loads(texts(file, "ENTRYPOINT")[-1])[0] in PROJECT["project"]["scripts"]
    (extras,) = re.findall(r"\.\[([\w,-]+)\]", " ".join(texts(file, "RUN")))
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    (user,) = texts(file, "USER")
    assert user not in ("root", "0") and any(f"--uid {user}" in run for run in texts(file, "RUN"))
    names = [instruction.name for instruction in instructions(file)]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    assert all(shlex.split(run) for run in texts(file, "RUN"))

"""No file of the four packages imports itself by way of others; imports inside functions count as those at the top do."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "store", "producer", "analyzer")


def module_files() -> dict[str, Path]:
    """Every module's dotted name and file; a package's name stands for its `__init__`."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """The modules of ours that a file names in an import anywhere in it: the submodule where that is what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from (name for name in ([whole] if whole in modules else [node.module]) if name in modules)


def import_graph() -> dict[str, set[str]]:
    files = module_files()
    return {name: set(imported(ast.parse(path.read_text(encoding="utf-8")), set(files))) - {name} for name, path in files.items()}


def test_no_file_imports_itself_by_way_of_others() -> None:
    """The import graph of all files has an order in which each comes after all that it imports."""
    graph = import_graph()
    assert len(graph) > 100 and sum(map(len, graph.values())) > len(graph)  # it is the whole house that was read
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_an_import_inside_a_function_is_seen() -> None:
    """The check reads imports wherever they stand, and tells a module from a name in it."""
    tree = ast.parse("def late():\n    from store.reading import reader\n    from schemas.run import Run\n    import numpy\n")
    assert set(imported(tree, set(module_files()))) == {"store.reading.reader", "schemas.run"}

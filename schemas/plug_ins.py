"""Plug-ins: scorers, methods, importers and tasks of other people's packages, which name them as entry points.

A package of another project declares `[project.entry-points."hedgemark.scorers"]` with `entropy = "their_package:entropy"`. Each registry
adds those of its group to itself when it is imported; nothing is searched for beyond installed packages.
"""

import re
from collections.abc import Callable, MutableMapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from schemas.errors import PlugInError

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # names stand in results, on command lines and in names of files


def add_plug_ins(group: str, registry: MutableMapping[str, T], problem: Callable[[str, Any], str]) -> dict[str, str]:
    """Add the plug-ins of a group to a registry. Returns the package, with its version, that each added name comes from.

    group   : such as "hedgemark.scorers".
    problem : (name, plug-in) -> "" if it is one of this group, else what it is not, as in "it is not a function".
    Raises PlugInError that names the package, for a plug-in that cannot be loaded, that is of another kind, or whose name is taken.
    """
    packages: dict[str, str] = {}
    added: dict[str, T] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, _package(entry))):
        what = f"plug-in {entry.name!r} of package {_package(entry)} ({group})"
        if not NAME.fullmatch(entry.name):
            raise PlugInError(f"{what} has a name that is not of small letters, digits and ._-; its package must rename it")
        if entry.name in registry or entry.name in added:
            owner = f"package {packages[entry.name]}" if entry.name in packages else "Hedgemark"
            raise PlugInError(f"{what} is called like one of {owner}; one of the two must be renamed or uninstalled")
        try:
            loaded = entry.load()
        except Exception as error:
            raise PlugInError(f"{what} cannot be loaded: {_in_short(error)}; mend or uninstall that package") from error
        if why := problem(entry.name, loaded):
            raise PlugInError(f"{what} cannot be used: {why}; mend or uninstall that package")
        added[entry.name] = loaded
        packages[entry.name] = _package(entry)
    registry.update(added)
    return packages


def not_callable(name: str, loaded: Any) -> str:
    """Return the problem of a plug-in that must be a function, "" where it is one."""
    return "" if callable(loaded) else f"it is a {type(loaded).__name__}, not a function"


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "of unknown name"


def _in_short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

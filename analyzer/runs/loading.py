"""Select runs of a store and load their arrays. This is the only module in this room that opens a store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from analyzer.runs.clustering import BY_QUESTION, Clustering, cluster_numbers
from analyzer.runs.orders import Reader, with_means_over_orders
from analyzer.runs.view import RunView, view_run
from schemas.errors import RunNotFoundError, UsageError
from schemas.levels import parse_level
from schemas.run import DENSE, Run
from store.reading.selection import matching_rows, name_models_apart

PARTNER = ("model", "task", "prompt")
FAR = float("inf")


@dataclass(frozen=True)
class Runs:
    """The selected rows of a store's catalog, in reading order, and the reader that loads their arrays.

    clustering : which items depend on each other.
    """

    reader: Reader
    rows: Sequence[Mapping[str, Any]]
    clustering: Clustering = BY_QUESTION

    def clustered(self, clustering: Clustering) -> Self:
        """Return the same runs with their items in these clusters."""
        return self if clustering == self.clustering else replace(self, clustering=clustering)

    def view(self, row: Mapping[str, Any]) -> RunView:
        """Return the arrays of one run. A store's reader raises if its catalog contradicts what is stored with the run."""
        return self._view(row, self.reader.run(row["name"]))

    def views(self) -> Iterator[RunView]:
        """Yield every run's arrays; the next few runs are fetched meanwhile."""
        for row, run in zip(self.rows, self.reader.runs(row["name"] for row in self.rows), strict=True):
            yield self._view(row, run)

    def _view(self, row: Mapping[str, Any], run: Run) -> RunView:
        view = view_run(run, self.reader.items(run.key.items_hash), row, self.reader.snapshot)
        if self.clustering == BY_QUESTION:
            return view
        return replace(view, grouping=cluster_numbers(view.items, self.clustering))


def open_runs(
    store_url: str, at: str | None, selection: Mapping[str, Sequence[str]], *, with_dense: bool = False, against: str | None = None
) -> Runs:
    """Return the runs of a store that match.

    selection  : field (model, method, level, task, prompt) -> accepted values; an empty list accepts all.
    with_dense : also the dense runs of the same models, tasks and prompts, whatever method and level are wanted.
    against    : this model's dense runs of the same tasks and prompts in place of those.
    Raises RunNotFoundError that lists the known names.
    """
    from store import open_reader

    return select_runs(open_reader(store_url, at), selection, with_dense=with_dense, against=against)


def open_texts(store_url: str, at: str | None, selection: Mapping[str, Sequence[str]]) -> Runs:
    """Return the runs over texts that match, and their dense runs; `open_runs` leaves them out. Raises what that raises."""
    from store import open_reader

    return select_runs(open_reader(store_url, at), selection, with_dense=True, over_text=True)


def select_runs(
    reader: Reader,
    selection: Mapping[str, Sequence[str]],
    *,
    with_dense: bool = False,
    against: str | None = None,
    over_text: bool = False,
) -> Runs:
    """Return the runs of an open reader that match; see open_runs. A prompt such as base@mean4 is a mean over orders of options."""
    reader = with_means_over_orders(reader, selection.get("prompt", ()))
    rows, selection = name_models_apart([row for row in reader.catalog.to_dicts() if bool(row.get("n_tokens")) == over_text], selection)
    where = f"snapshot {reader.snapshot}"
    if not rows and reader.catalog.height:
        contents, command = ("items", "produce --text") if over_text else ("a text", "produce --task")
        raise RunNotFoundError(f"all runs of the store at {where} are over {contents}; make others with {command}")
    if not rows:
        raise RunNotFoundError(f"the store has no runs at snapshot {reader.snapshot}; make some with produce, or use store import")
    dense = [row for row in rows if with_dense and row["method"] == DENSE]
    if against is not None and with_dense and not dense:
        raise RunNotFoundError(f"no dense run is stored at {where}; make one with: produce --model {against} --method dense")
    if against is not None:
        matching_rows(dense, {"model": [against]}, f"{where} among the dense runs")
    rows = matching_rows(rows, selection, where)
    chosen = {row["name"] for row in rows}
    same = {(row["model"] if against is None else against, row["task"], row["prompt"]) for row in rows}
    rows += [row for row in dense if row["name"] not in chosen and tuple(row[field] for field in PARTNER) in same]
    return Runs(reader, sorted(rows, key=reading_order))


def reading_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the sort key of table rows: model, task, prompt, then the dense run first, then method and level by strength."""
    strength = level_strength(row["level"])
    return row["model"], row["task"], row["prompt"], row["method"] != DENSE, row["method"], strength, row["level"], row["name"]


def level_strength(level: str) -> float:
    """Return how much a level compresses; +inf, which sorts last, for a text that is not a level."""
    try:
        return parse_level(level).strength
    except UsageError:
        return FAR

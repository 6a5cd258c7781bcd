"""The progress bar: one, over items or over a sweep's cells, on stderr, hidden where stderr is not a terminal."""

from collections.abc import Callable
from typing import Any

from producer.run.plan import Cell
from producer.run.produce import Progress


class Bar(Progress):
    """A tqdm bar per run, named after it, with time left, items and tokens per second."""

    def start(self, cell: Cell) -> Callable[[int], None]:
        """Begin a run's bar."""
        question = cell.question
        label = " ".join(part for part in (question.model.files.name, cell.level.text, question.task.name, question.prompt) if part != "-")
        self._tokens = question.prompts.tokens / len(question.item_set)
        self._bar = _tqdm(total=len(question.item_set), desc=label, unit="item")
        return self._advance

    def finish(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _advance(self, n_items: int) -> None:
        if seconds := self._bar.format_dict["elapsed"]:
            self._bar.set_postfix_str(f"{self._bar.n * self._tokens / seconds:,.0f} tokens/s", refresh=False)
        self._bar.update(n_items)


def cell_bar(n_cells: int) -> Any:
    """Return a bar over the cells of a sweep."""
    return _tqdm(total=n_cells, desc="sweep", unit="cell")


def _tqdm(**how: Any) -> Any:
    from tqdm import tqdm  # type: ignore[import-untyped]

    return tqdm(disable=None, leave=False, **how)

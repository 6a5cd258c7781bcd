"""The progress bar: one, over items, on stderr, hidden where stderr is not a terminal."""

from collections.abc import Callable
from typing import Any

from producer.plan import Cell
from producer.produce import Progress


class Bar(Progress):
    """A tqdm bar per run, named after it."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, cell: Cell) -> Callable[[int], None]:
        """Begin a run's bar."""
        from tqdm import tqdm  # type: ignore[import-untyped]

        question = cell.question
        label = " ".join(part for part in (question.model.files.name, cell.level.text, question.task.name, question.prompt) if part != "-")
        self._bar = tqdm(total=len(question.item_set), desc=label, unit="item", disable=None, leave=False)
        return self._advance

    def finish(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _advance(self, n_items: int) -> None:
        self._bar.update(n_items)

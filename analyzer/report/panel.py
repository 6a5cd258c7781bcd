"""What a panel of the page is: a table, which of its rows are shown, charts of it, and a sentence about it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from analyzer.measure.records import Record
from analyzer.report.data.tables import Tables

NO_PAIRS = "There is nothing to compare in this selection: a compressed run needs a dense run of the same model, task and prompt."
RUN = ("run", "scorer", "protocol")
COSTS, WATCH = "costs", "watch"


@dataclass(frozen=True)
class PanelColumn:
    """One column of a panel's table.

    digits   : number of decimals; None for text.
    interval : whether the interval from `<field>_low` to `<field>_high` is shown too.
    sign     : whether positive numbers have a plus sign.
    times    : factor of the shown number, 100 for a share in percent or points.
    """

    field: str
    title: str
    digits: int | None = None
    interval: bool = False
    sign: bool = False
    times: int = 1

    @property
    def fields(self) -> list[str]:
        """The fields it takes from a record."""
        return [self.field, f"{self.field}_low", f"{self.field}_high"] if self.interval else [self.field]


@dataclass(frozen=True)
class Selection:
    """Which rows of its table a panel shows.

    filters : those of the page's filters that apply to it.
    same    : fields in which a row's run must be equal to the chosen run.
    pair    : whether only the chosen run and its dense run are shown.
    """

    filters: tuple[str, ...]
    same: tuple[str, ...] = ()
    pair: bool = False

    @property
    def of_one_run(self) -> bool:
        """Whether the panel is about the chosen run, so that the page must name it."""
        return self.pair or "model" in self.same


FILTERS = ("model", "method", "task", "prompt", "scorer", "protocol")
FILTERED = Selection(FILTERS)
UNFILTERED = Selection(())  # rows about no run of the store
PAIR_ONLY = Selection(("scorer", "protocol"), pair=True)
NEIGHBOURS = Selection(("scorer", "protocol"), same=("base", "task", "prompt"))
SWEEP = Selection(("scorer", "protocol"), same=("base", "task", "prompt", "kind"))
SAME_TASK = Selection(("model", "method", "scorer", "protocol"), same=("task", "prompt"))


@dataclass(frozen=True)
class Listed:
    """A chart that is a list: one line per value of `field`, in rising order of `order` (falling if `falls`), ten of them at first."""

    field: str
    order: str
    falls: bool = False

    def place(self, row: Record) -> float:
        """Return what rows are sorted by; a row without the figure comes last."""
        value = row.get(self.order)
        return math.inf if value is None else -float(value) if self.falls else float(value)


@dataclass(frozen=True)
class Panel:
    """One panel.

    table   : name of its table.
    columns : columns of its table view and of its CSV, after those that name the run.
    shows   : which rows of the table.
    reading : writes the sentence about the panel from the tables.
    charts  : names of its charts, which `analyzer.report.charts.drawn` has.
    empty   : what the panel shows instead of a chart if it has no rows.
    more    : further fields that the charts or the page need.
    listed  : what its chart lists; None for a chart that is no list.
    """

    id: str
    title: str
    text: str
    table: str
    columns: tuple[PanelColumn, ...]
    reading: Callable[[Tables], str] | None = None
    charts: tuple[str, ...] = ()
    shows: Selection = FILTERED
    empty: str = NO_PAIRS
    more: tuple[str, ...] = ()
    listed: Listed | None = None

    @property
    def fields(self) -> list[str]:
        """The fields of each record that the page embeds; columns that the page calculates are not among them."""
        columns = () if self.calculated else self.columns
        return list(dict.fromkeys([*(RUN if self.of_runs else ()), *(name for column in columns for name in column.fields), *self.more]))

    @property
    def of_runs(self) -> bool:
        """Whether its rows are about runs of the store."""
        return self.shows != UNFILTERED

    @property
    def calculated(self) -> bool:
        """Whether the page calculates the columns itself, from prices that are typed in."""
        return self.table == COSTS

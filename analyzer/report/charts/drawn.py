"""Every chart of the page by name, and how it is drawn."""

from collections.abc import Callable
from typing import Any

from analyzer.report.charts import comparison_charts, study_charts, watch_charts
from analyzer.report.charts.theme import Spec

Chart = Callable[[list[str], dict[str, Any]], Spec]

CHARTS: dict[str, Chart] = {
    "heat": comparison_charts.heat_map,
    "scatter": comparison_charts.decoupling,
    "alpha-size": comparison_charts.set_size_by_alpha,
    "alpha-coverage": comparison_charts.coverage_by_alpha,
    "cliff-size": study_charts.cliff("set_size_change", "change in set size", (-0.1, 0.2)),
    "cliff-accuracy": study_charts.cliff("accuracy_change", "change in accuracy, points", (-4, 1), 100),
    "cliff-coverage": study_charts.cliff("coverage_change", "change in coverage, points", (-1, 1), 100),
    "cliff-flips": study_charts.cliff("flips", "flips, percent", (0, 5), 100),
    "sizes": comparison_charts.set_sizes,
    "flips": comparison_charts.flips,
    "frontier-size": study_charts.frontier("set_size", "mean set size"),
    "frontier-accuracy": study_charts.frontier("accuracy", "accuracy, %", 100),
    "scale": study_charts.scale,
    "transfer": study_charts.transfer,
    "cost": study_charts.cost,
    "watch-evidence": watch_charts.evidence,
    "watch-shares": watch_charts.shares,
}

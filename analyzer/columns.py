"""The columns of each command's table."""

from analyzer.table import Column, estimate, number, words

SETS = (
    Column("accuracy", estimate("accuracy")),
    Column("coverage", number("coverage", sd="coverage_sd")),
    Column("set size", estimate("set_size", 2)),
    Column("uacc", number("uacc", 2), dispensable=3),
    Column("empty", number("empty_rate"), dispensable=2),
    Column("single", number("singleton_rate"), dispensable=1),
)
COMPARE = (
    Column("accuracy", number("accuracy")),
    Column("Δ accuracy", estimate("accuracy_change", sign=True)),
    Column("coverage", number("coverage"), dispensable=4),
    Column("set size", number("set_size", 2)),
    Column("Δ set size", estimate("set_size_change", 2, sign=True)),
    Column("flips", number("flips"), dispensable=2),
    Column("KL", number("kl"), dispensable=3),
    Column("verdict", words("verdict")),
)

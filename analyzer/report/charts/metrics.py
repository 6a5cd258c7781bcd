"""The figures among which the heat map lets a reader choose: their words, factor and format, and the change with the fullest colour."""

METRICS = {
    "accuracy_change": ("change in accuracy", 100, "+.1f", 5.0),
    "set_size_change": ("change in set size", 1, "+.2f", 0.3),
    "coverage_change": ("change in coverage", 100, "+.1f", 2.0),
    "flips": ("flips", 100, ".1f", 15.0),
    "kl": ("KL", 1, ".3f", 0.15),
}
WORSE_BELOW = ("accuracy_change", "coverage_change")

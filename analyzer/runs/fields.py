"""Names that the command line and the library share."""

FORMATS = ("table", "json", "csv", "parquet", "markdown", "latex")
EXECUTOR_NAMES = ("plain", "processes", "ray")

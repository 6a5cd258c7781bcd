"""Names that the command line and the library share."""

FIELDS = ("model", "method", "level", "task", "prompt")  # by which runs are selected
FORMATS = ("table", "json", "csv", "parquet", "markdown", "latex")
EXECUTOR_NAMES = ("plain", "processes", "ray")

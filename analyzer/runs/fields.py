"""Names of output formats and executors, which the command line and the library share."""

FORMATS = ("table", "json", "csv", "parquet", "markdown", "latex")
EXECUTOR_NAMES = ("plain", "processes", "ray")

"""The fields by which runs are selected and told apart. Light to import, so that `--help` is instant."""

FIELDS = ("model", "method", "level", "task", "prompt")

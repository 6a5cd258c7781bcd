"""The fields of a run's key by which runs are selected, paired and told apart. Light to import, so that `--help` is instant."""

FIELDS = ("model", "method", "level", "task", "prompt")  # those that a user names
COMPUTED_AS = ("dtype", "backend", "seed")
KEY_COLUMNS = (*FIELDS, "items_hash", "weights_hash", "tokens_hash", *COMPUTED_AS)  # a catalog's columns about the key

"""The fields of a run's key by which runs are selected, paired and distinguished. Fast to import, so that `--help` is instant."""

FIELDS = ("model", "method", "level", "task", "prompt")  # the fields that a user names
COMPUTED_AS = ("dtype", "backend", "seed")
KEY_COLUMNS = (*FIELDS, "items_hash", "weights_hash", "tokens_hash", *COMPUTED_AS)  # fields of the key that are columns of a catalog

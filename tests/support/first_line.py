"""What a command writes on stderr after its first line."""


def after_first_line(stderr: str) -> list[str]:
    """Return the lines after the one that says what the command begins with."""
    first, *others = stderr.strip().splitlines()
    assert first.endswith(" ..."), stderr
    return others

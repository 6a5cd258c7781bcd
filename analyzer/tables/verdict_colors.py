"""Colours of verdicts on a terminal: green may ship, red must not, yellow is undecided."""

import click

COLORS = {
    "pass": "green", "both hold": "green", "holds": "green",
    "fail": "red", "both degrade": "red", "accuracy holds, sets grow": "red", "accuracy falls, sets do not warn": "red", "alarm": "red",
    "inconclusive": "yellow", "not judged": "yellow", "not enough yet": "yellow",
}  # fmt: skip


def in_color(verdict: str, text: str) -> str:
    """Return a text in the colour of a verdict; what is no verdict, such as a title, stays as it is."""
    return click.style(text, fg=COLORS[verdict]) if verdict in COLORS else text

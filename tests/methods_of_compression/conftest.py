"""What all tests of the compression methods share."""

import pytest


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SpinQuant learn for 20 steps instead of 60, which lower its loss by 5 to 20 % on the tiny models, and AutoRound for 5."""
    from producer.methods import autoround, spinquant

    monkeypatch.setattr(spinquant, "STEPS", 20)
    monkeypatch.setattr(autoround, "STEPS", 5)

"""`analyze gate --predictor`: does a threshold that is deployed still cover under the new model?"""

from pathlib import Path

import numpy as np
import pytest
from shipping import data_set, made, rewritten

from analyzer.api import calibrate, gate
from schemas.errors import RunNotFoundError, UsageError


def noisy(noise: float, **attributes: str) -> object:
    data = data_set(2000)
    rng = np.random.default_rng(1)
    data["logits"] = data["logits"] + noise * rng.normal(size=data["logits"].shape)
    return data.assign_attrs(method="rtn", level="w4a16", **attributes)


@pytest.mark.parametrize(("noise", "result"), [(0.05, "pass"), (3.0, "fail")])
def test_the_check_is_the_coverage_under_the_old_threshold(noise: float, result: str) -> None:
    """Little noise keeps the dense threshold's coverage, much noise loses it; the amount is a plain count of answers in their sets."""
    predictor = calibrate(data_set(2000))
    new = noisy(noise)
    [check] = gate([data_set(2000), new], scorers="lac", predictor=predictor).filter(check="predictor_coverage").to_dicts()
    logits, answer = new["logits"].to_numpy(), new["answer"].to_numpy()  # type: ignore[index]
    inside = predictor.predict(logits.astype(np.float32), n_options=(~np.isnan(logits)).sum(axis=1))[np.arange(2000), answer]
    assert check["amount"] == pytest.approx(inside.mean(), abs=1e-12)
    assert (check["result"], check["limit"]) == (result, pytest.approx(0.88))


def test_a_limit_of_its_own_is_kept() -> None:
    """A limit on predictor_coverage replaces 0.02 below 1 - alpha; without a predictor it is refused."""
    runs = [data_set(2000), noisy(0.05)]
    [check] = gate(runs, {"predictor_coverage": 0.95}, predictor=calibrate(data_set(2000))).filter(check="predictor_coverage").to_dicts()
    assert (check["limit"], check["result"]) == (0.95, "fail")
    with pytest.raises(UsageError, match="name its file with `predictor`"):
        gate(runs, {"predictor_coverage": 0.95})


def test_a_predictor_for_something_else_is_refused(tmp_path: Path) -> None:
    """Of another task or prompt: nothing is passed in silence; of fewer options: said by the predictor."""
    runs = [data_set(2000), noisy(0.05)]
    with pytest.raises(RunNotFoundError, match="no selected run is of task other"):
        gate(runs, predictor=calibrate(data_set(task="other")))
    with pytest.raises(UsageError, match="was asked with prompt base, the predictor is for prompt shared"):
        gate(runs, predictor=calibrate(data_set(prompt="shared")))
    with pytest.raises(UsageError, match="was asked prompt base in other words"):
        gate(runs, predictor=rewritten(tmp_path / "p.json", made(), lambda value: value["made_on"].update(prompt_hash="0" * 64)))
    with pytest.raises(UsageError, match="the predictor is for another mix of subjects"):
        gate(runs, predictor=calibrate(data_set(), subject_mix={"law": 0.8, "history": 0.2}))
    with pytest.raises(UsageError, match="has 4 options; expected 2 to 3"):
        gate(runs, predictor=calibrate(data_set(n_options=3)))

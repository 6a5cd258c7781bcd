"""Does a changed mix of subjects explain an alarm? Then the threshold can be made again from the same items, each weighing otherwise.

It explains the alarm if questions are alike within every subject, and if no more answers are missed than the mix makes one expect.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analyzer.watch.miscoverage import miss_share_range
from analyzer.watch.mix import FEWEST_SINCE
from analyzer.watch.monitor import ALL, Watch
from store.exchange.whole_file import write_document

NAMED = 3  # subjects that moved most


class MixChange(NamedTuple):
    """What the mix of subjects says of an alarm. `str` says it in words.

    shares : share of each subject since the change; {} if it does not explain the alarm.  why : the reason, in words.
    """

    shares: Mapping[str, float]
    why: str

    def __str__(self) -> str:
        return self.why


def mix_change(watch: Watch, tolerance: float) -> MixChange | None:
    """Return whether a changed mix of subjects explains an alarm; None where subjects are not known, or the threshold is for a mix.

    tolerance : by how much more answers may be missed than expected, as a share of all.
    """
    mix, looks = watch.mix, watch.looks
    if mix is None or looks is None or watch.predictor.document.weighted:
        return None
    if watch.predictor.subjects:
        return MixChange({}, "each subject has its own threshold, so a change of the mix of subjects alone breaks no promise")
    strongest = max(looks.values(), key=lambda one: float(one.bets.highest))
    since = strongest.since_subject[int(strongest.bets.best)]
    if reason := _unexplained(watch, tolerance, n_since=int(since.sum())):
        return MixChange({}, reason)
    shares = {name: count / int(since.sum()) for name, count in zip(mix.names, since.tolist(), strict=False) if count}
    before = dict(zip(mix.names, mix.shares.tolist(), strict=True))
    most = sorted(mix.names, key=lambda name: -abs(shares.get(name, 0.0) - before[name]))[:NAMED]
    moves = ", ".join(f"{name} {before[name]:.2g} to {shares.get(name, 0.0):.2g}" for name in most)
    asked = np.array([mix.parts[name].n for name in mix.names])
    return MixChange(
        shares,
        f"a changed mix of subjects explains it ({moves}; within subjects nothing changed): about {mix.covered(since):.1%} of the "
        f"answers are in their sets, of the calibration questions {mix.covered(asked):.1%}; --mix-out mix.toml writes the new mix, and "
        "analyze calibrate --subject-mix mix.toml makes the threshold for it",
    )


def write_mix(change: MixChange | None, path: Path) -> None:
    """Write the mix that explains an alarm as the TOML file that `analyze calibrate --subject-mix` takes; nothing if none does."""
    if change is not None and change.shares:
        rows = "".join(f"{json.dumps(name, ensure_ascii=False)} = {share!r}\n" for name, share in change.shares.items())
        about = "# The mix of subjects of the live questions since it changed, written by analyze monitor.\n"
        write_document(path, f"{about}[subjects]\n{rows}".encode())


def _unexplained(watch: Watch, tolerance: float, n_since: int) -> str:
    """Return why a changed mix does not explain the alarm; "" if it does."""
    mix = watch.mix
    assert mix is not None
    if mix.live[-1]:
        return f"{mix.live[-1]:,} questions are of subjects that no calibration question has, so no mix of subjects explains it"
    changed = [name for name, one in mix.looks.items() if float(one.bets.highest) >= len(mix.looks) / watch.delta]
    if changed:
        return f"a changed mix of subjects does not explain it: {', '.join(changed)} changed within subjects too"
    if not mix.moved(watch.delta):
        return "the mix of subjects is not seen to have changed, so it does not explain it"
    counts = watch.groups[ALL]
    if counts["answered"]:
        expected = 1 - mix.covered(mix.answered)
        if miss_share_range(counts["missed"], counts["answered"], watch.delta).low > expected + tolerance:
            return f"a changed mix of subjects does not explain it: {expected:.1%} of the answers should be missed under it, and more are"
    if n_since < FEWEST_SINCE:
        return f"whether a changed mix of subjects explains it cannot be told from {n_since} questions; {FEWEST_SINCE} are needed"
    return ""

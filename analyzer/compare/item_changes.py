"""What compression changed item by item: flips, answers, probs, option mass. Each a mean over the items of a pair."""

from collections.abc import Mapping

import numpy as np

from analyzer.runs.pairs import Pair
from analyzer.stats.arrays import BoolArray
from analyzer.stats.estimate import NOTHING, Estimate, mean
from analyzer.stats.probs import log_softmax
from schemas.options import option_mass

CHANGES = ("flips", "flips_to_wrong", "flips_to_right", "answers_changed", "kl", "kl_reverse", "js", "option_mass_change")


def item_changes(pair: Pair) -> Mapping[str, Estimate]:
    """Return the estimates by name.

    flips              : share of items that turn from right to wrong (flips_to_wrong) or from wrong to right (flips_to_right).
    answers_changed    : share of items whose most likely option changes at all, wrong to other wrong included.
    kl, kl_reverse, js : KL(dense || compressed), KL(compressed || dense), Jensen-Shannon divergence over the options, nats.
    option_mass_change : change of the options' share of the full vocabulary's prob; nothing where a run did not record it.
    """
    if not pair.dense.n_items:
        return dict.fromkeys(CHANGES, NOTHING)
    before, after = pair.dense.correct, pair.compressed.correct
    found: dict[str, Estimate] = {
        "flips": _share(before != after),
        "flips_to_wrong": _share(before & ~after),
        "flips_to_right": _share(~before & after),
        "answers_changed": _share(pair.dense.chosen != pair.compressed.chosen),
    }
    return found | _divergences(pair) | {"option_mass_change": _option_mass_change(pair)}


def _share(happens: BoolArray) -> Estimate:
    return mean(happens, share=True)


def _divergences(pair: Pair) -> dict[str, Estimate]:
    p, q = pair.dense.probs, pair.compressed.probs
    log_p, log_q = (log_softmax(view.logits, view.n_options) for view in pair)
    log_middle = np.logaddexp(log_p, log_q) - np.log(2)
    per_item = {
        "kl": np.nansum(p * (log_p - log_q), axis=1),
        "kl_reverse": np.nansum(q * (log_q - log_p), axis=1),
        "js": np.nansum(p * (log_p - log_middle) + q * (log_q - log_middle), axis=1) / 2,
    }
    return {name: mean(np.maximum(values, 0.0)) for name, values in per_item.items()}  # rounding may leave -1e-17


def _option_mass_change(pair: Pair) -> Estimate:
    masses = [option_mass(view.logits, view.n_options, view.logsumexp) for view in pair]
    return mean(masses[1] - masses[0]) if all(np.isfinite(mass).all() for mass in masses) else NOTHING

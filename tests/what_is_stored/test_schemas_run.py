"""Run keys, levels, digests: equal means equal, and what is impossible is refused."""

import numpy as np
import pytest

from schemas.digest import arrays_digest, canonical_json
from schemas.errors import HedgemarkError, NonFiniteError, UsageError
from schemas.levels import parse_level, parse_levels
from schemas.run import Run, RunKey


def key(**changes: str) -> RunKey:
    fields = {"model": "ref-s", "method": "wanda", "level": "0.5", "task": "urn", "items_hash": "ab", "prompt": "base"}
    return RunKey(**(fields | changes))


def run(logits: np.ndarray, run_key: RunKey | None = None) -> Run:
    n = len(logits)
    return Run(run_key or key(), logits.astype(np.float32), np.zeros(n, np.float32), np.zeros(n, np.int32))


@pytest.mark.parametrize(
    ("text", "canonical", "strength"),
    [
        ("w4a16-g128", "w4a16-g128", 12),
        ("w8a8", "w8a8", 16),
        ("w4a16-channel", "w4a16", 12),
        ("W4A4KV4", "w4a4+kv-int4", 36),
        ("w4a8kv8-g128", "w4a8-g128+kv-int8", 28),
        ("w4a4kv16", "w4a4", 24),
        (".50", "0.5", 0.5),
        ("2:4", "2:4", 0.5),
        ("-", "-", 0),
        ("0", "0", 0),
        ("1/3", "0.333333", 0.333333),
    ],
)
def test_levels_have_one_spelling(text: str, canonical: str, strength: float) -> None:
    """Each accepted form parses to its canonical text and its place along a sweep."""
    level = parse_level(text)
    assert (level.text, level.strength) == (canonical, strength)
    assert parse_level(level.text) == level


IMPOSSIBLE = ["1", "1.0", "-0.1", "0.99999999", "w0a16", "w1a8", "w99a16", "4:4", "0:4", "nan", "inf", "w4", "w4a16-g0", "1/0"]
IMPOSSIBLE += ["w4a4kv3", "w1a4kv4"]
NO_NAMES = ["1e-99999999", "1e99", "9" * 5000, "w4a16g128", "None", "null", "a b", "a/b", "a\nb", "../x", "q" * 65, "int4;", "é", "-int4"]
ENDLESS = ["1e-99999999", "1e-100", "0." + "1" * 5000, "1/" + "3" * 5000, "w" + "9" * 5000 + "a16", "0.\u0665", "w\u0664a16", "1_0/2_00"]
BACKWARDS = ["0.5:0:0.1", "0:1:0.5", "0:0.5:0", "0:0.5:-0.1", "-0.1:0.5:0.1", "0:0.5:1e-9", "a:b:c", "0:0.5:1/0", "nan:0.5:0.1"]


@pytest.mark.parametrize("text", [*IMPOSSIBLE, *NO_NAMES])
def test_impossible_levels_are_refused(text: str) -> None:
    """A level that cannot be meant is a usage error that quotes it."""
    with pytest.raises(UsageError, match="level"):
        parse_level(text)


def test_a_name_is_a_level_ordered_by_its_bits() -> None:
    """Names that checkpoints go by are kept as written, and stand in the order of the bits that they state or imply."""
    names = ["float16", "FP8_BLOCK", "Q6_K", "Q4_K_M", "exl3-4.25bpw", "int4", "3bit", "IQ2_XS", "2.0bpw"]
    levels = [parse_level(name) for name in names]
    assert [level.text for level in levels] == names and {level.kind for level in levels} == {"name"}
    assert [level.bits for level in levels] == [16, 8, 6.56, 4.9, 4.25, 4, 3, 2.31, 2]
    assert [level.strength for level in levels] == sorted(level.strength for level in levels)
    for name, bits in {"bf16": 16, "nf4": 4, "mxfp4": 4.25, "NVFP4": 4, "gptq-int4-g128": 4, "float32": 32, "W4A16_ASYM": 4}.items():
        assert parse_level(name).bits == bits, name
    assert parse_level("merged").bits is None and parse_level("merged").strength == float("inf")
    assert parse_level("W4A16-G128") == parse_level("w4a16-g128")


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        (["0:0.5:0.1"], ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        (["0:0.7:0.3"], ["0", "0.3", "0.6"]),
        ([".3:.3:1"], ["0.3"]),
        (["2:4", "0.1:0.3:0.1", "0.20", "w4a16"], ["2:4", "0.1", "0.2", "0.3", "w4a16"]),
        ([], []),
    ],
)
def test_a_range_is_its_fractions(given: list[str], texts: list[str]) -> None:
    """start:stop:step means every step including both ends, without the drift of adding 0.1 in floating point; each level once."""
    assert [level.text for level in parse_levels(given)] == texts


@pytest.mark.parametrize("text", BACKWARDS)
def test_an_impossible_range_is_refused(text: str) -> None:
    """A range that runs backwards, stands still, reaches 1 or is no numbers is a usage error that quotes it."""
    with pytest.raises(UsageError, match=rf"level '{text}'.*0:0\.5:0\.1"):
        parse_levels([text])


def test_every_field_of_the_key_changes_the_name() -> None:
    """Two keys that differ in any field never share a name."""
    changes = ({"model": "ref-m"}, {"level": "0.4"}, {"revision": "r"}, {"weights_hash": "w"}, {"dtype": "bfloat16"}, {"prompt_hash": "p"})
    variants = [key(), *(key(**change) for change in changes)]
    assert len({v.name for v in variants}) == len(variants)


def test_a_hostile_model_name_stays_a_plain_group_name() -> None:
    """Slashes, dots, markup and length in a model name cannot leave the runs group."""
    name = key(model="../../<script>" + "x" * 3000).name
    assert "/" not in name and not name.startswith(".") and len(name) < 200


def test_nonfinite_logits_are_refused_unless_allowed() -> None:
    """NaN beyond an item's options is padding; NaN or infinity among them is an error."""
    padded = run(np.array([[1.0, 2.0, np.nan], [1.0, 2.0, 3.0]]))
    padded.check(np.array([2, 3]))
    for bad in (np.nan, np.inf, -np.inf):
        broken = run(np.array([[1.0, bad, np.nan], [1.0, 2.0, 3.0]]))
        with pytest.raises(NonFiniteError, match="1 of 2 items"):
            broken.check(np.array([2, 3]))
        broken.check(np.array([2, 3]), allow_nonfinite=True)


def test_shapes_must_fit_the_items() -> None:
    """A run over another number of items is refused."""
    with pytest.raises(HedgemarkError, match="do not fit 3 items"):
        run(np.zeros((2, 3))).check(np.array([3, 3, 3]))


def test_digest_sees_every_array_and_the_key() -> None:
    """Changing one logit, the key, or swapping two arrays changes the digest; big-endian bytes do not."""
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    changed = logits.copy()
    changed[0, 0] = np.nextafter(np.float32(0), np.float32(1))
    assert len({run(logits).digest, run(changed).digest, run(logits, key(model="m")).digest}) == 3
    assert arrays_digest({}, {"a": logits}) == arrays_digest({}, {"a": logits.astype(">f4")})
    assert arrays_digest({}, {"a": logits}) != arrays_digest({}, {"b": logits})


def test_canonical_json_refuses_nan() -> None:
    """NaN in a key would give a text that is not JSON."""
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})

"""The contract of a compression method: what code that lists, plans or runs methods may rely on.

In: a dense model, a level, compression data, a seed.  Out: `Applied`: the compressed model and what was measured on it.

- `check_level`, `check_config` and `settings_for` need no weights, so a request can be refused, and a run key computed, before loading.
- `apply` may compress in place: afterwards only `Applied.model` may be used.
- `Applied.model` is in eval mode, in the dtype and on the device of the dense model, whose weights must all be on one device. It has the
  modules of the dense model, and every layer has the forward signature of the decoder layer it replaces, so that it can be run layer by
  layer. Shapes may differ from the config and from layer to layer: llm-pruner changes the number of key/value heads, slicegpt the width of
  the residual stream. Experts are linear layers, one for each matrix.
- Quantized weights hold their dequantized values; activations are rounded inside the forward pass (simulated quantization).
- A violated post-condition raises PostConditionError, and nothing of that run may be stored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from producer.methods.shared.architectures import MODELS
from producer.methods.shared.cache_rounding import cache_settings, no_cache, round_cache
from producer.methods.shared.compression_cost import CompressionCost
from producer.methods.shared.finished_layers import FinishedLayers
from producer.methods.shared.method_options import Option, read_chosen
from schemas.errors import UsageError
from schemas.levels import NO_LEVEL, Level, parse_level

if TYPE_CHECKING:
    from producer.methods.shared.compression_data import CompressionData

DATA, GRADIENTS, NOTHING = "compression data", "compression data, gradients", "-"


class Applied(NamedTuple):
    """A compressed model, the settings that made it (part of the run key) and its measured post-conditions.

    cost : seconds and peak memory of the compression, as a run records them; nothing where an earlier command did a part of it.
    """

    model: Any
    settings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    cost: Mapping[str, float]


class Job(NamedTuple):
    """The arguments of `Method.compress`, beside the model.

    data       : the compression data, None for a method that needs none.
    settings   : what `Method.settings` returns for the level and the model, the method's options by name among them.
    statistics : what the method's `collect` returned for the dense model.
    device     : device that layers are compressed on, one at a time; None for the model's own.
    finished   : layers that a killed command has compressed, and where those of this one are kept; None keeps nothing.
    """

    level: Level
    settings: Mapping[str, Any]
    data: "CompressionData | None"
    seed: int
    statistics: Any = None
    device: Any = None
    finished: FinishedLayers | None = None


@dataclass(frozen=True)
class Method:
    """One compression method: how it is listed, what it accepts, how it is run.

    name, kind, paper : as `produce --list methods` shows them.
    default_level     : the level used if the request names none.
    levels            : a description of all levels, for the list and for error messages.
    needs             : NOTHING, DATA, or GRADIENTS (compression data and gradients).
    compress     : (model, job) -> the compressed model; the method itself. It may change the model in place.
    settings_for : level -> JSON-able settings, which become part of the run key; they depend on the level alone.
    accepts      : level -> "" if the method has this level, else the reason why not.
    fits         : (config, level) -> "" if the method can compress this model to this level, else the reason why not.
    verify       : (compressed model, job) -> the measured post-conditions, JSON-able; raises PostConditionError if one is violated.
    models       : a description of the models that `fits` admits, for the list.
    collect      : (dense model, data, device) -> statistics that all levels use; None for a method that needs none.
    statistics_of : (fields) -> the statistics that `collect` returns as a tuple of these fields.
    level_of     : (config, requested level) -> the level stored in the run key; `checkpoint` reads it from the model's own files.
    needs_at     : level -> whether this level takes compression data although the method as such does not.
    group_for    : (config, most) -> largest group of up to `most` columns that divides every layer; None for a method without groups.
    rotates      : whether it rotates the model, so that keys are rotated before they are rounded.
    unsavable    : why what it makes cannot be saved as a checkpoint, "" where it can.
    changes      : whether the method changes the weights. If not, the level only describes them, and any change of logits is an error.
    library      : the library that does the work where it is not installed with the producer, as it is imported, which with hyphens is
                   also the name of the extra; "" for none.
    takes_cache  : whether its levels may state a format of cached keys and values beside (`w4a16+kv-int8`).
    cache_of     : level -> the format to which cached keys and values are rounded, "" for none. Every method takes a level with such a
                   cache; the functions above see the level without it.
    options      : the settings that a request may choose, by name.
    chosen       : those that a request chose, read; see `with_chosen`.

    >>> from schemas.levels import parse_level
    >>> keep = Method(
    ...     name="keep", kind="example", paper="-", default_level="0", levels="level 0 only", needs=NOTHING,
    ...     compress=lambda model, job: model, settings_for=lambda level: {},
    ...     accepts=lambda level: "" if level.fraction == 0 else "it removes nothing",
    ...     fits=lambda config, level: "", verify=lambda model, job: {},
    ... )
    >>> keep.check_level(parse_level("0.5"))
    Traceback (most recent call last):
    ...
    schemas.errors.UsageError: method 'keep' has no level '0.5': it removes nothing; its levels: level 0 only
    """

    name: str
    kind: str
    paper: str
    default_level: str
    levels: str
    needs: str
    compress: Callable[[Any, Job], Any]
    settings_for: Callable[[Level], Mapping[str, Any]]
    accepts: Callable[[Level], str]
    fits: Callable[[Any, Level], str]
    verify: Callable[[Any, Job], dict[str, Any]]
    models: str = MODELS
    collect: Callable[[Any, "CompressionData", Any], Any] | None = None
    statistics_of: Callable[..., Any] = lambda *fields: fields
    level_of: Callable[[Any, Level], Level] = lambda config, level: level
    unsavable: str = ""
    changes: bool = True
    library: str = ""
    needs_at: Callable[[Level], bool] = lambda level: False
    group_for: Callable[[Any, int], int] | None = None
    rotates: bool = False
    takes_cache: bool = True
    cache_of: Callable[[Level], str] = lambda level: level.cache
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)
    chosen: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def with_chosen(self, texts: Mapping[str, str]) -> "Method":
        """Return the method with the settings that a request chose, by name; those of other methods are left out.

        Raises UsageError for a value that the method does not take.
        """
        return replace(self, chosen=read_chosen(self.name, self.options, texts)) if self.options else self

    def needs_data(self, level: Level) -> bool:
        """Return whether `apply` needs compression data for a level."""
        return self.needs != NOTHING or self.needs_at(level.without_cache)

    def refusal(self, level: Level) -> str:
        """Return why the method does not have a level, or ""."""
        if level.cache and not self.takes_cache:
            return "keys and values alone are rounded by method kv, whose levels are the formats"
        return self.accepts(level.without_cache)

    def settings(self, level: Level, config: Any) -> dict[str, Any]:
        """Return the settings that a run at a level of a model with this config records, JSON-able."""
        cache, weights = self.cache_of(level), level.without_cache
        rounding = cache_settings(cache, rotated=self.rotates) if cache else {}
        return {**self.settings_for(weights), **self.values_of(weights, config), **rounding}

    def values_of(self, level: Level, config: Any) -> dict[str, Any]:
        """Return the value of every option, chosen or the default for a level of a model with this config."""
        return {name: self.chosen[name] if name in self.chosen else option.default(config, level) for name, option in self.options.items()}

    def level_for(self, config: Any, level: Level) -> Level:
        """Return the level that the run key states for a model, where this one was asked for."""
        stated = self.level_of(config, level.without_cache)
        return stated.with_cache(level.cache) if level.cache else stated

    def default_for(self, config: Any) -> Level:
        """Return the default level for a model: where its groups do not divide every layer, the largest that do."""
        level = parse_level(self.default_level)
        if self.group_for is None or level.group_size is None:
            return level
        return parse_level(self.default_level.replace(f"-g{level.group_size}", f"-g{self.group_for(config, level.group_size)}"))

    def check_level(self, level: Level) -> None:
        """Raise UsageError for a level that the method does not have."""
        if reason := self.refusal(level):
            raise UsageError(f"method {self.name!r} has no level {level.text!r}: {reason}; its levels: {self.levels}")

    def misfit(self, config: Any, level: Level) -> str:
        """Return why the method cannot compress the model with this config to a level with the settings chosen, or ""; needs no weights."""
        cache, weights = self.cache_of(level), level.without_cache
        reason = self.fits(config, weights) or (no_cache(config, cache) if cache else "")
        for name, value in self.values_of(weights, config).items() if not reason else ():
            reason = reason or self.options[name].fits(config, weights, value)
        return reason

    def check_config(self, config: Any, level: Level, name: str = "") -> None:
        """Raise UsageError if the method cannot compress the model with this Hugging Face config to this level; needs no weights.

        A library that the method needs and that is not installed is an error too.

        name : the user's name for the model, used in the message.
        """
        if reason := self.misfit(config, level):
            name = name or getattr(config, "name_or_path", "") or getattr(config, "model_type", "")
            raise UsageError(f"method {self.name!r} at level {level.text!r} does not support model {name!r}: {reason}")
        if reason := self.missing_library():
            raise UsageError(reason)

    def missing_library(self) -> str:
        """Return what to install before the method can be used on this machine, or ""."""
        if not self.library or find_spec(self.library):
            return ""
        return f"method {self.name!r} needs a library that is not installed: pip install 'hedgemark[{self.library.replace('_', '-')}]'"

    def apply(self, model: Any, level: Level, data: "CompressionData | None", seed: int) -> Applied:
        """Return the model compressed to one level; the dense model may not be used afterwards."""
        return next(self.sweep(model, [level], data, seed))

    def sweep(  # noqa: PLR0913, PLR0917
        self,
        model: Any,
        levels: Sequence[Level],
        data: "CompressionData | None",
        seed: int,
        device: Any = None,
        finished: Callable[[Level], FinishedLayers] = lambda _: FinishedLayers(),
        kept: Callable[[Callable[[], Any]], Any] = lambda collect: collect(),
    ) -> Iterator[Applied]:
        """Yield the model compressed to each level in turn, with the same results as one `apply` per level.

        device   : device on which layers are compressed one at a time, for a model kept on the host because the device is too small.
        finished : where the layers of a level's model are kept as they are finished.
        kept     : calls what collects the statistics of the dense model, or returns those that were kept.

        Statistics of the dense model are collected once. Every level but the last starts from a copy of the dense model; a yielded
        model is freed when the generator continues.
        """
        from producer.methods.shared.make_linear import make_linear
        from producer.methods.shared.post_conditions import dense_logits, verify_change, verify_reach, verify_same

        for level in levels:
            self.check_level(level)
            self.check_config(model.config, level)
        if data is None and any(map(self.needs_data, levels)):
            raise UsageError(f"method {self.name!r} needs compression data for level {next(filter(self.needs_data, levels)).text!r}")
        model.eval()
        dense, dense_config = dense_logits(model, data), deepcopy(model.config)
        reach: dict[str, float] = {}
        if self.changes:
            verify_same(dense_logits(make_linear(model), data), dense, model)
            reach = verify_reach(model)
        collect, statistics, on = self.collect, None, device or model.device
        collecting = CompressionCost(on)
        if collect and data is not None:
            statistics = self.statistics_of(*kept(lambda: collecting.of(collect, model, data, device)))
        all_measured = statistics is None or collecting.measured
        for number, level in enumerate(levels):
            working = model if number == len(levels) - 1 else deepcopy(model)
            weights = level.without_cache
            used = data if self.needs_data(level) else None
            job = Job(weights, self.settings(level, dense_config), used, seed, statistics, device, layers := finished(level))
            cost = CompressionCost(on, collecting)
            working = cost.of(self.compress, working, job).eval()
            conditions = self.verify(working, job) | vars(working).get("expert_statistics", {})
            if cache := self.cache_of(level):
                conditions = conditions | round_cache(working, cache, rotated=self.rotates)._asdict()
            changed_by = level if self.changes or cache else parse_level(NO_LEVEL)
            conditions = verify_change(working, data, dense, changed_by, conditions) | reach | conditions
            yield Applied(working, job.settings, conditions, cost.recorded() if all_measured and not layers.restored else {})
            del working  # freed before the next copy is made

"""What a compression method is, to everybody who lists, plans or runs one.

In: a dense model, a level, compression data, a seed.  Out: `Applied`: the compressed model and what was measured on it.

The caller may rely on this:
- `check_level`, `check_config` and `settings_for` need no weights, so a plan is refused, and a run key computed, before loading.
- `apply` works in place where it can; the model handed in is spent, only `Applied.model` is to be run.
- `Applied.model` is in eval mode, on the device and in the dtype of the model handed in (all weights must be on one device), and
  runs by `model(input_ids=..., past_key_values=...)`. It keeps the standard skeleton `model.model.{embed_tokens, layers, norm,
  rotary_emb}`, `model.lm_head`, and every layer keeps the forward signature of the decoder layer it replaces, so a caller may run
  layer by layer. It may NOT rely on shapes: the number of key/value heads and the width of the residual stream can differ
  from layer to layer and from the config (llm-pruner, slicegpt), so a cache takes its shapes from the tensors put into it.
- Quantized weights hold their dequantized values, activations are rounded inside the forward pass (simulated quantization).
- A violated post-condition raises PostConditionError: nothing of that run may be written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import UsageError
from schemas.levels import Level

if TYPE_CHECKING:
    from producer.methods.shared.compression_data import CompressionData

DATA, GRADIENTS, NOTHING = "compression data", "compression data, gradients", "-"


class Applied(NamedTuple):
    """A compressed model, the settings that made it (part of the run key) and its measured post-conditions."""

    model: Any
    settings: Mapping[str, Any]
    conditions: Mapping[str, Any]


class Job(NamedTuple):
    """What a method is given: everything but the model.

    statistics : what its `collect` returned on the dense model.
    device     : where a layer is worked on, None where the model lies.
    """

    level: Level
    settings: Mapping[str, Any]
    data: "CompressionData | None"
    seed: int
    statistics: Any = None
    device: Any = None


@dataclass(frozen=True)
class Method:
    """One compression method: how it is listed, what it accepts, how it is run.

    compress     : (model, job) -> model; the method itself. It may put what it measured on its way into `conditions`.
    settings_for : level -> JSON-able settings, the same for the same level, known without the model.
    accepts      : level -> reason why not, or "".
    fits         : (config, level) -> reason why not, or "".
    verify       : (model, level, settings) -> measured post-conditions; raises PostConditionError.
    collect      : (model, data, device) -> statistics of the dense model that serve every level, or None.
    """

    name: str
    kind: str
    paper: str
    default_level: str
    levels: str
    needs: str
    models: str
    compress: Callable[[Any, Job], Any]
    settings_for: Callable[[Level], Mapping[str, Any]]
    accepts: Callable[[Level], str]
    fits: Callable[[Any, Level], str]
    verify: Callable[[Any, Job], dict[str, Any]]
    collect: Callable[[Any, "CompressionData", Any], Any] | None = None

    @property
    def needs_data(self) -> bool:
        """Whether `apply` must be given compression data."""
        return self.needs != NOTHING

    def check_level(self, level: Level) -> None:
        """Raise UsageError where the method has no such level."""
        if reason := self.accepts(level):
            raise UsageError(f"method {self.name!r} cannot take level {level.text!r}: {reason}; it takes {self.levels}")

    def check_config(self, config: Any, level: Level, name: str = "") -> None:
        """Raise UsageError where the method cannot do this model (a Hugging Face config) at this level; reads no weights.

        name : what the user calls the model; a config knows its folder or its type at best.
        """
        if reason := self.fits(config, level):
            name = name or getattr(config, "name_or_path", "") or getattr(config, "model_type", "")
            raise UsageError(f"method {self.name!r} at level {level.text!r} cannot do model {name!r}: {reason}")

    def apply(self, model: Any, level: Level, data: "CompressionData | None", seed: int) -> Applied:
        """Return the model compressed to one level; the model handed in is spent."""
        return next(self.sweep(model, [level], data, seed))

    def sweep(
        self, model: Any, levels: Sequence[Level], data: "CompressionData | None", seed: int, device: Any = None
    ) -> Iterator[Applied]:
        """Yield the model compressed to each level in turn, the same as `apply` one by one.

        device : where layers are worked on, one at a time, when the model lies elsewhere: on the host because the device cannot hold it.

        The dense model is loaded once and its statistics are collected once; every level but the last starts from a copy in memory.
        Use what is yielded before asking for the next: the copy is dropped then.
        """
        from producer.methods.shared.post_conditions import dense_logits, verify_change

        for level in levels:
            self.check_level(level)
            self.check_config(model.config, level)
        if self.needs_data and data is None:
            raise UsageError(f"method {self.name!r} needs compression data")
        model.eval()
        dense = dense_logits(model, data)
        statistics = self.collect(model, data, device) if self.collect and data is not None else None
        for number, level in enumerate(levels):
            working = model if number == len(levels) - 1 else deepcopy(model)
            job = Job(level, self.settings_for(level), data, seed, statistics, device)
            working = self.compress(working, job).eval()
            conditions = verify_change(working, data, dense, level) | self.verify(working, job)
            yield Applied(working, job.settings, conditions)
            del working  # before the next copy is made

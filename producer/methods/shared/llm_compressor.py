"""Run llm-compressor on a model in memory, layer by layer, with or without a GPU, and without its output.

In: a model, a recipe of llm-compressor modifiers, compression data.  Out: the same model object, changed in place.

The library's own sequential pipeline traces the model's Python code and thereby loses the causal mask of Qwen3-MoE (seen with version
0.14: the inputs of `o_proj` in layer 0 have 0.4 to 0.9 of their true norm). The pipeline in this file instead runs the decoder layers on
the arguments that the model passes to them.

A modifier that is `FromRoutedTokens` takes the statistics of an expert from the tokens that the router sends to it, and from all tokens
where those are fewer than a matrix has columns, which would leave its Hessian singular. Any other modifier shows every expert every token.
"""

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from functools import cache, partial
from typing import Any
from unittest.mock import patch

from producer.methods.shared.finished_layers import FinishedLayers
from producer.methods.shared.layerwise import layer_inputs
from producer.methods.shared.linear_layers import BATCH

log = logging.getLogger(__name__)
PIPELINE = "decoder-layers"
ROUTED = "routed tokens, all where they are fewer than columns"  # the setting of methods with `FromRoutedTokens`
working_device: ContextVar[Any] = ContextVar("device on which layers are compressed, None for the model's own", default=None)
_finished: ContextVar[FinishedLayers | None] = ContextVar("layers that need not be compressed", default=None)
_advance: ContextVar[Callable[[], None] | None] = ContextVar("makes the current decoder layer's outputs the next inputs", default=None)
_routing: ContextVar["_Routing | None"] = ContextVar("which experts see which tokens; None if all see all", default=None)


def oneshot(
    model: Any, recipe: Callable[[], Sequence[Any]], data: Any = None, device: Any = None, finished: FinishedLayers | None = None
) -> Any:
    """Run a recipe on a model in place: layer by layer if there is data, else without a forward pass.

    What share of the experts' matrices all tokens were used for is left as `model.expert_statistics`.

    recipe   : returns the modifiers; a function, because importing them prints, which only `quiet` suppresses.
    data     : CompressionData or None.
    device   : device on which layers are compressed, one at a time; None for the model's own.
    finished : layers that need not be compressed, and where the others are kept; None keeps nothing.
    """
    finished = finished or FinishedLayers()
    with quiet():
        from llmcompressor.core import active_session

        entry = _entry_point()
        working_device.set(device)
        _finished.set(finished)
        modifiers = list(recipe())
        routed = [modifier for modifier in modifiers if isinstance(modifier, FromRoutedTokens)]
        routing = _Routing(routed, finished.record) if routed else None
        token = _routing.set(routing)
        options = {"processor": object(), "pipeline": PIPELINE, "moe_calibrate_all_experts": not routed}
        try:
            with _cpu_cache():
                entry(model=model, recipe=modifiers, dataset=_loader(data), **options)()
        finally:
            _routing.reset(token)
            active_session().reset()  # type: ignore[no-untyped-call]  # else the global session would keep the model alive
        model.expert_statistics = routing.measured() if routing else {}
        vars(model).pop("save_pretrained", None)  # the library's method refers to the model, which would keep it alive too
    return model


class FromRoutedTokens:
    """Mixin for the library's modifiers that sum statistics of every layer's inputs: an expert's come from the tokens routed to it."""

    def calibrate_module(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """Take in a layer's inputs, unless this pass is for other layers."""
        routing = _routing.get()
        if args[0].numel() and (routing is None or routing.counts(module, args[0])):
            super().calibrate_module(module, by_sequence(args), output)  # type: ignore[misc]

    def forget(self, modules: Collection[Any]) -> None:
        """Drop what was summed for some layers."""
        for name in ("_num_samples", "_hessians", "_row_scalars"):
            for module in modules:
                getattr(self, name, {}).pop(module, None)


class _Routing:
    """How many tokens the experts' matrices saw, and which of them are to see all.

    record : takes the number of matrices, and of those that see all tokens.
    """

    def __init__(self, modifiers: Sequence[FromRoutedTokens], record: dict[str, Any]) -> None:
        self.modifiers, self.record, self.tokens = modifiers, record, Counter[Any]()
        self.only: Collection[Any] | None = None

    def counts(self, module: Any, x: Any) -> bool:
        """Return whether a layer takes in these inputs, (..., column), and count them."""
        self.tokens[module] += x.numel() // x.shape[-1]
        return self.only is None or module in self.only

    def observe(self, layer: Any, run: Callable[[], None]) -> None:
        """Show a decoder layer the data: first every expert its own tokens, then all tokens to those that saw too few."""
        from llmcompressor.modeling.moe.context import moe_calibration_context

        run()
        matrices = _expert_matrices(layer)
        starved = {module for module in matrices if self.tokens[module] < module.weight.shape[1]}
        for name, some in (("expert_matrices", matrices), ("starved_matrices", starved)):
            self.record[name] = self.record.get(name, 0) + len(some)
        if starved:
            for modifier in self.modifiers:
                modifier.forget(starved)
            self.only = starved
            with moe_calibration_context():
                run()
            self.only = None

    def measured(self) -> dict[str, float]:
        """Return the share of the experts' matrices for which all tokens were used; nothing for a model without experts."""
        n_matrices = self.record.get("expert_matrices", 0)
        return {"experts_from_all_tokens": self.record["starved_matrices"] / n_matrices} if n_matrices else {}


def _expert_matrices(layer: Any) -> list[Any]:
    import torch
    from llmcompressor.modeling.moe.linear_experts import LinearExperts2D

    experts = [module for module in layer.modules() if isinstance(module, LinearExperts2D)]
    return [module for each in experts for module in each.modules() if isinstance(module, torch.nn.Linear)]


def advance_before(layers: Collection[Any], take: Callable[[Any, tuple[Any, ...]], None]) -> None:
    """Run the decoder layer of this pass with its weights as they are now, and make what it returns the inputs of the next one.

    take : (layer, arguments), called before each of these linear layers is run on a batch.
    """
    from llmcompressor.modifiers.utils.hooks import HooksMixin

    advance = _advance.get()
    assert advance is not None, "called once for every decoder layer, while it is compressed"
    hooks = [layer.register_forward_pre_hook(take) for layer in layers]
    try:
        with HooksMixin.disable_hooks():
            advance()
    finally:
        for hook in hooks:
            hook.remove()
    _advance.set(None)


def by_sequence(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a linear layer's arguments as the library's pruning kernels take them: at most (sequence, token, column)."""
    x = arguments[0]
    return (x.flatten(1, -2) if x.ndim > 3 else x, *arguments[1:])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send the library's output (loguru, progress bars) to this module's logger at debug level."""
    sink = _LogLines()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        from llmcompressor import logger  # loguru's, which this import sets up

        logger.configure(handlers=[{"sink": lambda message: log.debug("%s", str(message).rstrip()), "format": "{message}"}])
        yield


class _LogLines(io.StringIO):
    """A stream whose lines go to the log."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                log.debug("%s", line.rstrip())
        return len(text)


@cache
def _entry_point() -> Any:
    """Return the library's entry point with the pipeline of this file, changed not to look for the model's checkpoint on disk or Hub."""
    from llmcompressor.core import LifecycleCallbacks, active_session
    from llmcompressor.entrypoints.oneshot import Oneshot
    from llmcompressor.pipelines.registry import CalibrationPipeline
    from llmcompressor.utils.helpers import DisableQuantization, calibration_forward_context

    class OneshotInMemory(Oneshot):
        """Skips the check of the checkpoint's files, since the model is in memory."""

        def validate_model(self, model: Any) -> None:
            """Accept any model: methods get full-precision weights only."""

    @CalibrationPipeline.register(PIPELINE)
    class DecoderLayers(CalibrationPipeline):
        """Observe each decoder layer's inputs, compress the layer, and pass its new outputs on to the next one."""

        @staticmethod
        def __call__(model: Any, dataloader: Any, dataset_args: Any) -> None:
            """Run the session's modifiers, on all layers at once if there is no data."""
            callbacks, state = LifecycleCallbacks, active_session().state
            state.loss_masks, state.sequential_prefetch = None, False
            callbacks.calibration_start()
            if dataloader is None:
                callbacks.sequential_epoch_end(list(model.modules()))
            else:
                with calibration_forward_context(model), DisableQuantization(model):
                    batches = (batch["input_ids"] for batch in dataloader)
                    for layer, run in layer_inputs(model, batches, working_device.get(), _finished.get()):
                        if routing := _routing.get():
                            routing.observe(layer, run)
                        else:
                            run()
                        _advance.set(partial(run, advance=True))
                        callbacks.sequential_epoch_end(list(layer.modules()))
                        if _advance.get():
                            advance_before([], lambda *_: None)
            callbacks.calibration_end()

    return OneshotInMemory


def _loader(data: Any) -> Any:
    import torch

    if data is None:
        return None
    rows: Any = [{"input_ids": torch.tensor(row)} for row in data.input_ids]
    return torch.utils.data.DataLoader(rows, batch_size=BATCH)


@contextlib.contextmanager
def _cpu_cache() -> Iterator[None]:
    """Turn off pinned memory in the library's activation cache if there is no GPU, since pinning then raises an error."""
    import torch

    if torch.accelerator.is_available():
        yield
        return
    from llmcompressor.pipelines.cache import IntermediatesCache

    with patch.object(IntermediatesCache, "pin_memory", lambda *args, **kwargs: None):
        yield

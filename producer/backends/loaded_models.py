"""Load a model once for all that one process makes of it, one after the other.

In: a `Model`, a device.  Out: the model with plain weights, which its caller may change. Where the model is asked for again, it is kept on
the host as it was loaded, and everyone gets a copy, if the host's memory holds it three times: as it was loaded, the copy, and the copy of
that from which a method with several levels starts.
"""

from copy import deepcopy
from typing import Any

from producer.engine.memory_plan import USABLE
from producer.machine.free_memory import free_memory, memory_for
from producer.methods.shared.make_linear import make_linear
from producer.models.compressed_weights import round_expert_inputs
from producer.models.load import load_model
from producer.models.weights_hash import weights_hash
from producer.request.planned import Model

HOST = "cpu"
TIMES = 3


class LoadedModels:
    """The model that this process loaded last, if it is asked for again.

    Attributes
    ----------
    n_loaded : how often weights were read from files.
    """

    def __init__(self) -> None:
        self.n_loaded: int = 0
        self._kept: tuple[tuple[str, str], Any] | None = None
        self._always, self._n_processes = False, 1

    def keep_for_cells(self, n_processes: int) -> None:
        """Keep every model, since a sweep sends the cells of one model together; so many processes share the host's memory."""
        self._always, self._n_processes = True, n_processes

    def load(self, model: Model, device: str, *, again: bool) -> Any:
        """Return the model in its dtype on a device.

        again : whether the same model is asked for once more in this command.
        Raises HedgemarkError as `load_model` does, and where the memory does not hold the weights.
        """
        self.keep_only(model)
        again = again or self._always
        with memory_for("the weights", device):
            if self._kept is None:
                self.n_loaded += 1
                keeps = again and TIMES * model.weight_bytes * self._n_processes < USABLE * free_memory(HOST)
                loaded = round_expert_inputs(load_model(model.files, model.dtype, HOST if keeps else device), make_linear)
                if not keeps:
                    return loaded
                self._kept = _identity(model), loaded
            loaded = self._kept[1]
            if not again:
                self.drop()
            return (deepcopy(loaded) if again else loaded).to(device)

    def keep_only(self, model: Model) -> None:
        """Free what is kept unless it is this model."""
        if self._kept and self._kept[0] != _identity(model):
            self.drop()

    def drop(self) -> None:
        """Free the model that is kept."""
        self._kept = None

    def end_command(self) -> None:
        """Free the model that is kept, unless the next cell of a sweep may ask for it."""
        if not self._always:
            self.drop()


def _identity(model: Model) -> tuple[str, str]:
    return weights_hash(model.files), model.dtype


LOADED = LoadedModels()  # of this process

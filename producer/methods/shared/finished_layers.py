"""Keep the decoder layers that a compression has finished, so that a command that was killed goes on at the layer where it was.

In: what determines the compressed model, each layer when it is finished, the inputs of the next one.  Out: these again, bit by bit.

They wait in the cache folder, in `compression/<digest of what determines the model>`, until the model's runs are in the store. They are
written as soon as half of the time that may be lost has passed since the last time: a file for each layer finished since then, one for the
inputs of the next layer, and last the manifest, which names the files with their SHA-256. Each file is written aside and renamed. One
process at a time has a model's folder; another one that compresses the same model keeps nothing.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from schemas.digest import json_digest
from store.backend.user_cache import delete_unused, existing_cache_folder, warn_once

log = logging.getLogger(__name__)

FOLDER = "compression"
MANIFEST = "manifest.json"
LARGEST_SHARE = 0.5  # of the free disk that one file may take; a larger one is not written


class FinishedLayers:
    """The decoder layers of one compression that are finished, those of an earlier command among them.

    identity : JSON value of everything that determines the compressed model; None keeps nothing.
    every    : seconds of work that may be lost.
    fresh    : whether to delete what an earlier command kept.

    Attributes
    ----------
    n      : number of layers that are finished.
    restored : whether layers of an earlier command are among them.
    record : JSON values that belong to the layers, such as the exponents found for them; those of an earlier command after `restore`.
    """

    def __init__(self, identity: Any = None, every: float = math.inf, *, fresh: bool = False) -> None:
        self.n, self.restored, self.record = 0, False, dict[str, Any]()
        self._folder: Path | None
        self._period, self._since = every / 2, time.monotonic()
        self._files, self._unwritten = dict[str, str](), list[tuple[int, Any]]()
        self._folder, self._failed = None, False
        if identity is not None and every < math.inf:
            parent = existing_cache_folder() / FOLDER
            delete_unused(parent.glob("*"))
            self._folder = parent / json_digest(identity)
            self._lock = FileLock(self._folder.with_suffix(".lock"), timeout=0)
            if fresh and self._folder.exists() and self._hold_folder():
                shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def on_disk(self) -> bool:
        """Whether layers of this model are on disk."""
        return bool(self._files)

    def restore(self, layers: Sequence[Any], device: Any) -> list[Any] | None:
        """Make the first layers what an earlier command made them, and return the inputs of the next one on a device.

        Return None if nothing was kept, or if a file is damaged: then everything is deleted with a warning, and no layer is changed.
        """
        from safetensors.torch import load_file

        self._since = time.monotonic()
        if self._folder is None or not self._folder.exists() or not self._hold_folder():
            return None
        try:
            manifest = _read_manifest(self._folder)
            for number in range(manifest["layers"]):
                _check_fit(self._folder / _layer_file(number), layers[number])
            inputs = load_file(self._folder / _inputs_file(manifest["layers"]))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            log.warning("%s cannot be used (%s); the model is compressed from its first layer", self._folder, error)
            shutil.rmtree(self._folder, ignore_errors=True)
            return None
        for number in range(manifest["layers"]):
            for name, tensor in load_file(self._folder / _layer_file(number)).items():
                _put(layers[number], name, tensor)
        self.n, self._files, self.restored = manifest["layers"], manifest["files"], True
        self.record.update(manifest["record"])
        log.warning("%d of %d layers are those that a killed command compressed", self.n, len(layers))
        return [inputs[str(batch)].to(device, copy=True) for batch in range(len(inputs))]

    def add(self, layer: Any, inputs: Sequence[Any]) -> None:
        """Take in the layer that was finished last, with the inputs of the next one, and write what is due."""
        self._unwritten.append((self.n, layer))
        self.n += 1
        if self._folder and not self._failed and time.monotonic() - self._since >= self._period and self._hold_folder():
            self._write(self._folder, inputs)

    def end(self) -> None:
        """Let go of the layers; call this behind the last one."""
        self._unwritten.clear()

    def discard(self) -> None:
        """Delete what is on disk; call this when the model's runs are stored."""
        if self._folder is not None and self._hold_folder():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _hold_folder(self) -> bool:
        """Return whether this process has the folder; if another one has it, or it cannot be locked, nothing is kept from now on."""
        if self._lock.is_locked:
            return True
        try:
            Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            log.warning("another process compresses the same model and keeps its layers; those of this one are not kept")
            self._folder = None
        except OSError as error:
            warn_once(error)
            self._folder = None
        return self._folder is not None

    def _write(self, folder: Path, inputs: Sequence[Any]) -> None:
        try:
            folder.mkdir(exist_ok=True)
            for number, layer in self._unwritten:
                self._files[_layer_file(number)] = _write_tensors(folder / _layer_file(number), dict(_tensors(layer)))
            before = [name for name in self._files if name.startswith("inputs")]
            name = _inputs_file(self.n)
            self._files[name] = _write_tensors(folder / name, {str(batch): state for batch, state in enumerate(inputs)})
            for old in before:
                del self._files[old]
            manifest = {"layers": self.n, "files": self._files, "record": self.record}
            text = json.dumps(manifest | {"digest": json_digest(manifest)})
            _replace(folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
            for old in before:
                (folder / old).unlink(missing_ok=True)
        except OSError as error:  # what was written before stays whole, since the manifest is written last
            warn_once(error)
            self._failed = True
        self._unwritten.clear()
        self._since = time.monotonic()


def _layer_file(number: int) -> str:
    return f"layer-{number}.safetensors"


def _inputs_file(n_layers: int) -> str:
    return f"inputs-{n_layers}.safetensors"


def _tensors(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the weights and buffers of a layer, without those that llm-compressor only needs while it compresses it."""
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if "_observer." not in name:
            yield name, tensor


def _put(layer: Any, name: str, tensor: Any) -> None:
    """Give a layer a weight or a buffer; a buffer that it does not have yet is added."""
    owner, _, attribute = name.rpartition(".")
    module, device = layer.get_submodule(owner), next(layer.parameters()).device
    if hasattr(module, attribute):
        getattr(module, attribute).data = tensor.to(device, copy=True)
    else:
        module.register_buffer(attribute, tensor.to(device, copy=True), persistent=False)


def _check_fit(path: Path, layer: Any) -> None:
    """Raise AttributeError or ValueError if a file's tensors are not those of a layer; it may have more buffers."""
    from safetensors import safe_open

    there = dict(_tensors(layer))
    with safe_open(path, framework="pt") as tensors:
        names = set(tensors.keys())
        for name in names:
            layer.get_submodule(name.rpartition(".")[0])
        if others := [name for name in there if name not in names or tensors.get_slice(name).get_shape() != list(there[name].shape)]:
            raise ValueError(f"{path.name} has no {others[0]} of this shape")


def _write_tensors(path: Path, tensors: Mapping[str, Any]) -> str:
    """Write tensors into a file, whole or not at all, and return its SHA-256. Raises OSError where there is not enough room."""
    from safetensors.torch import save_file

    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > LARGEST_SHARE * shutil.disk_usage(path.parent).free:
        raise OSError(f"{size / 1e9:.2f} GB would take most of the free disk")
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return _replace(path, lambda scratch: save_file(copies, scratch))


def _replace(path: Path, write: Any) -> str:
    scratch = path.with_suffix(".partial")
    try:
        scratch.touch()
        mode = scratch.stat().st_mode
        write(scratch)
        scratch.chmod(mode)  # safetensors makes a file that its owner alone can read, whatever the umask
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return digest


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder. Raises OSError or ValueError if it, or a file that it names, is damaged or missing."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    if manifest.pop("digest") != json_digest(manifest):
        raise ValueError(f"{MANIFEST} is damaged")
    for name, digest in manifest["files"].items():
        with (folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise ValueError(f"{name} is damaged")
    return dict(manifest)

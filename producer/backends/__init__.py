"""The backends by name."""

from producer.backends.base import Backend
from producer.backends.server import ServerBackend
from producer.backends.transformers import TransformersBackend
from producer.backends.vllm import VllmBackend

BACKENDS: dict[str, Backend] = {
    "transformers": TransformersBackend(),
    "vllm": VllmBackend(),
    "server": ServerBackend(),
}

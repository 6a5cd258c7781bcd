"""The backends by name."""

from producer.backends.base import Backend
from producer.backends.transformers import TransformersBackend

BACKENDS: dict[str, Backend] = {
    "transformers": TransformersBackend(),
}

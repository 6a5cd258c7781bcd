"""How much goes into a batch."""

ON_CPU = 2048  # activations of a small model then stay near the caches
ON_DEVICE = 32768


def default_tokens(device: str) -> int:
    """Return the token budget of a batch on a device."""
    return ON_CPU if device == "cpu" else ON_DEVICE

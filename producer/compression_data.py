"""The public name of compression data, for scripts that draw the same text as `produce`."""

from producer.methods.shared.compression_data import PACKAGED, CompressionData, draw_compression_data

__all__ = ["PACKAGED", "CompressionData", "draw_compression_data"]

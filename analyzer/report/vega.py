"""The scripts that draw the page's charts: Vega, Vega-Lite and Vega-Embed as one file.

Bundling them takes three seconds, so the bundle is kept in the user's cache, under the version of the library that made it. A file in the
cache begins with the digest of the rest: one that was damaged or changed is made again.
"""

import hashlib
import os
from contextlib import suppress
from functools import cache

from store.backend.user_cache import cache_folder, warn_once

KIND = "scripts"


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that is safe inside a script element."""
    import vl_convert

    path = cache_folder(KIND) / f"vega-{vl_convert.__version__}.js"  # type: ignore[attr-defined]  # the stub lacks it
    try:
        digest, _, script = path.read_bytes().decode().partition("\n")
        if digest == _digest(script):
            return script
    except (OSError, ValueError):  # not cached yet, or no text
        pass
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub lacks the default of its one argument
    script = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(f"{_digest(script)}\n{script}".encode())
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        warn_once(error)
    return script


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()

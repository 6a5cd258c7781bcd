"""The scripts that draw the page's charts: Vega, Vega-Lite and Vega-Embed as one file.

Bundling them takes three seconds, so the bundle is kept in the user's cache, under the version of the library that made it.
"""

from functools import cache

from store.backend.user_cache import cache_folder, kept_text

KIND = "scripts"


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that is safe inside a script element."""
    import vl_convert

    return kept_text(cache_folder(KIND) / f"vega-{vl_convert.__version__}.js", _bundled)  # type: ignore[attr-defined]  # the stub lacks it


def _bundled() -> str:
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub lacks the default of its one argument
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")

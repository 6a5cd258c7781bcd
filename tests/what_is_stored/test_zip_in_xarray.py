"""An exported zip file opens in xarray with the line of schemas/layout.md."""

import re
from pathlib import Path

import numpy as np
import xarray
import zarr
from store_tiny import tiny_items, tiny_run, write_runs

from store import open_reader
from store.exchange.zip_file import write_zip

PAGE = Path(__file__).resolve().parents[2] / "schemas" / "layout.md"


def test_the_line_of_the_page_opens_a_run(store_url: str, tmp_path: Path) -> None:
    """Copied from the page, with the file and the run put in."""
    items = tiny_items()
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    write_zip(open_reader(store_url).keys, tmp_path / "logits.zip")
    [line] = re.findall(r"`(xarray\.open_zarr\(zarr.*)`\.", PAGE.read_text(encoding="utf-8"))
    line = line.replace("logits.zip", str(tmp_path / "logits.zip")).replace("<name>", run.key.name)
    opened = eval(line, {"xarray": xarray, "zarr": zarr})
    assert np.array_equal(opened["logits"].values, run.logits, equal_nan=True)

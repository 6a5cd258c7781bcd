"""Read the columns of a table from elsewhere without guessing: ids and names are text, flags are 0 or 1, numbers are numbers.

In: a CSV or Parquet file.  Out: a polars frame and its columns. CSV and Parquet files of the same content give the same values: every
value of a CSV is read as text ("0001" is not 1), and texts that Parquet stores as numbers are written as a CSV would have them.
"""

import csv
import io
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.json_text import read_text
from store.format.polars_files import read_polars

TRUE, FALSE = ("true", "1", "1.0"), ("false", "0", "0.0", "")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # spreadsheets write semicolons if numbers have decimal commas


def load_table(path: Path) -> pl.DataFrame:
    """Return the table of a file. Raises UsageError if it is damaged, has no rows, or has two columns of one name."""
    table = _load_parquet(path) if path.suffix == ".parquet" or _begins_as_parquet(path) else _load_csv(path)
    if table.is_empty():
        raise UsageError(f"{path.name} has a header and no rows")
    return table


def texts(table: pl.DataFrame, name: str, *, optional: bool = False) -> pl.Series:
    """Return a column as text. Unless it is optional, an empty value raises UsageError, which names the row."""
    column = table[name]
    if column.dtype.is_nested() or column.dtype.is_object() or column.dtype == pl.Null:
        raise UsageError(f"column {name} holds {column.dtype}; expected text or numbers")
    try:
        column = column.cast(pl.String).fill_null("")
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"column {name} holds {column.dtype} that is not text: {_first_line(error)}") from error
    if not optional and (column == "").any():
        raise UsageError(f"column {name} is empty in row {int((column == '').arg_true()[0]) + 1}")
    return column


def flags(table: pl.DataFrame, name: str) -> NDArray[np.bool_]:
    """Return a column of true and false, 0 and 1; an empty value is false. Raises UsageError for anything else."""
    column = texts(table, name, optional=True).str.to_lowercase()
    odd = column.filter(~column.is_in([*TRUE, *FALSE]))
    if len(odd):
        raise UsageError(f"column {name} holds {odd[0][:80]!r}; expected true or false, 1 or 0")
    return column.is_in(TRUE).to_numpy()


def numbers(table: pl.DataFrame, names: list[str]) -> NDArray[np.float64]:
    """Return columns as a (row, column) array, NaN where there is no value. Raises UsageError for what is not a number."""
    columns = []
    for name in names:
        column = table[name]
        if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
            raise UsageError(f"column {name} holds {column.dtype}; expected numbers")
        try:
            column = column.str.strip_chars() if column.dtype == pl.String else column
            columns.append(column.cast(pl.Float64).to_numpy())
        except pl.exceptions.PolarsError as error:
            raise UsageError(f"column {name}: a value is not a number: {_first_line(error)}") from error
    return np.column_stack(columns)


def _load_csv(path: Path) -> pl.DataFrame:
    try:
        lines = [row for row in csv.reader(io.StringIO(read_text(path), newline=""), strict=True) if row]
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{path.name} is not a CSV table: {str(error)[:160]}") from error
    if not lines:
        raise UsageError(f"{path.name} is empty; expected a line with the names of the columns, and rows")
    header, *rows = lines
    if len(header) == 1 and (separator := next((each for each in SEPARATORS if each in header[0]), "")):
        raise UsageError(
            f"{path.name} has {SEPARATORS[separator]} between its columns; save it with commas there and with points in its numbers"
        )
    if repeated := [name for name in header if header.count(name) > 1]:
        raise UsageError(f"{path.name} has two columns called {repeated[0][:80]!r}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise UsageError(f"{path.name} row {number} has {len(row)} values for {len(header)} columns")
    columns = {name: [row[column] or None for row in rows] for column, name in enumerate(header)}
    return pl.DataFrame(columns, schema=dict.fromkeys(header, pl.String))


def _begins_as_parquet(path: Path) -> bool:
    """Whether the first bytes of a file mark it as Parquet, whatever its name is."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PAR1"
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror}") from error


def _load_parquet(path: Path) -> pl.DataFrame:
    try:
        return read_polars(pl.read_parquet, path)
    except ValueError as error:
        raise UsageError(f"{path.name} is not a Parquet table: {error}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]

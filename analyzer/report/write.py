"""Where a report goes: a page to a file, tables to a file or stdout, figures to a folder."""

from pathlib import Path

from analyzer.report.study import Study
from schemas.errors import UsageError


def write_page(study: Study, path: Path) -> Path:
    """Write the page of a study and return its path. Raises UsageError for a path that cannot be written."""
    from analyzer.report.page import page

    _write(path, page(study).encode())
    return path


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error

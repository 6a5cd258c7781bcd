"""Fixtures shared by all tests: the folder of published data, and a rule that no dependency may be missing in CI."""

import os
from pathlib import Path

import pytest
from hypothesis import settings
from report_browser import chromium, open_page  # noqa: F401  # fixtures of tests that look at the report in a browser
from store_servers import s3_credentials, seaweedfs, seaweedfs_servers  # noqa: F401  # fixtures of tests against real servers
from store_tiny import own_cache, store_url  # noqa: F401  # fixtures of every test that writes a store
from swaps_once import swaps_drawn_once  # noqa: F401  # a fixture of tests that ask for one store's tables again and again

os.environ.setdefault("OMP_NUM_THREADS", "1")  # matrices of tests are small, and as many processes run them as there are cores
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables in a pipe would follow it
settings.load_profile("ci")  # the same examples everywhere, and no time limits, which a busy machine exceeds
collect_ignore_glob = ["support/*", "fuzz/*", "golden/*"]  # no tests: some need torch, which a base install lacks
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of published logits and items; its tests skip only where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED / "data"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip producer tests where torch is not installed, unless every dependency is required."""
    try:
        import torch  # noqa: F401
    except ImportError:
        if os.environ.get("REQUIRE_ALL_DEPS") and not config.getoption("markexpr"):
            raise
        for item in items:
            if "producer" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="torch is not installed (base install)"))

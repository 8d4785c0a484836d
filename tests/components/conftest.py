"""Fixtures of component tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.components.shop import Shop, land_orders, services


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def make_shop(tmp_path: Path, instance: dg.DagsterInstance) -> Callable[..., Shop]:
    def make(*, signal: float = 1.5, thresholds: dict[str, float] | None = None, **changes: Any) -> Shop:
        landing = tmp_path / "landing"
        land_orders(landing, signal=signal)
        return Shop(tmp_path, services(landing, **(thresholds or {})), instance, **changes)

    return make

"""The door's channels on a stage."""

from __future__ import annotations

import pytest

from tests.compat.stage import Stage


@pytest.fixture
def stage() -> Stage:
    """The root, the door's channels, four engines, and a client."""
    return Stage(4).open()

"""Schedulers to talk to. Whatever one says or does, the test must have looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.transcript import Transcript


@pytest.fixture
def root() -> Iterator[Transcript]:
    """The root of a cluster of 8 engines, none of them there yet."""
    yield from _watched(Transcript(0, 8))


@pytest.fixture
def leaf() -> Iterator[Transcript]:
    """A scheduler under the root, with ranks 4 to 7, none of them there yet."""
    yield from _watched(Transcript(4, 8, level=1))


def _watched(transcript: Transcript) -> Iterator[Transcript]:
    yield transcript
    assert transcript.unseen() == {}

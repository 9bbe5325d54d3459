"""A cluster of four engines in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hiersched.client.balanced_view import LoadBalancedView
from hiersched.client.client import Client
from hiersched.client.direct_view import DirectView
from tests.client.fake_root import FakeRoot, session_with
from tests.client.fake_session import FakeClient, FakeSession


@pytest.fixture
def session() -> FakeSession:
    return FakeSession(engines=4)


@pytest.fixture
def root() -> FakeRoot:
    """What a real session talks to."""
    return FakeRoot()


@pytest.fixture
def rc(root: FakeRoot) -> Iterator[Client]:
    """A client of that root, through a real session."""
    with session_with(root) as session:
        client = Client.__new__(Client)
        client.session, client.cluster = session, None
        yield client


@pytest.fixture
def client(session: FakeSession) -> FakeClient:
    return FakeClient(session)


@pytest.fixture
def view(client: FakeClient) -> DirectView:
    """All engines."""
    return DirectView(client)


@pytest.fixture
def balanced(client: FakeClient) -> LoadBalancedView:
    return LoadBalancedView(client)

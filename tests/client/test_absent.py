"""Names of ipyparallel's that have no meaning here say what there is instead."""

from __future__ import annotations

from pathlib import Path

import pytest

import hiersched
from hiersched.client import absent
from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import ConnectionFileError, NotOffered, UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster runs."""
    monkeypatch.setenv("HIERSCHED_DIR", str(tmp_path))


@pytest.mark.parametrize("name", absent.CLIENT_ARGUMENTS)
def test_an_argument_that_a_client_cannot_follow_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name}: "):
        Client(**{name: "something"})
    with pytest.raises(ConnectionFileError, match="no cluster runs"):
        Client(**{name: None})


def test_what_clients_of_ipyparallel_may_say_about_sockets_is_of_no_effect() -> None:
    with pytest.raises(ConnectionFileError, match="no cluster runs"):
        Client(context=object(), debug=True)


def test_a_client_takes_ipyparallels_name_of_the_file() -> None:
    with pytest.raises(ConnectionFileError, match=r"/nowhere\.json cannot be read"):
        Client(url_file="/nowhere.json")


def test_an_unknown_argument_of_a_client_is_told_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"no argument 'profil': did you mean 'profile'\?"):
        Client(profil="mine")


@pytest.mark.parametrize("name", absent.CLUSTER_ARGUMENTS)
def test_an_argument_that_a_cluster_cannot_follow_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name}: "):
        Cluster(1, **{name: "something"})
    assert Cluster(1, **{name: None}).n == 1


@pytest.mark.parametrize("name", absent.CLUSTER_NAMES)
def test_names_that_are_not_there_are_attribute_errors_that_help(name: str) -> None:
    cluster = Cluster(1)
    assert not hasattr(cluster, name)
    with pytest.raises(NotOffered, match=rf"^Cluster\.{name}: "):
        getattr(cluster, name)


def test_a_client_tells_who_makes_calls() -> None:
    client = Client.__new__(Client)
    with pytest.raises(NotOffered, match=r"rc\[0\]\.apply_async"):
        client.send_apply_request  # noqa: B018
    with pytest.raises(AttributeError, match=r"^'Client' object has no attribute 'colour'$"):
        client.colour  # noqa: B018


def test_the_module_tells_of_its_absent_names() -> None:
    with pytest.raises(AttributeError, match=r"Cluster\.list\(\) tells"):
        hiersched.ClusterManager  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'colour'$"):
        hiersched.colour  # noqa: B018


def test_errors_are_known_by_ipyparallels_names_too() -> None:
    assert hiersched.error.CompositeError is hiersched.CompositeError
    assert hiersched.error.TaskAborted is hiersched.TaskCancelled
    assert hiersched.error.TimeoutError is hiersched.TimeoutError is TimeoutError
    assert hiersched.FIRST_COMPLETED == "FIRST_COMPLETED"

"""What cannot be done is refused where it is asked for; nothing hangs, and nothing else is lost."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator

import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import CapacityError, CompositeError, NoEngines, PackError, RemoteError, UnknownEngine, UserError
from hiersched.limits import ENGINES_MAX
from tests import leftovers
from tests.patience import DEADLINE_S
from tests.processes.conftest import in_a_notebook


@pytest.fixture(autouse=True)
def _works_afterwards(rc: Client) -> Iterator[None]:
    yield
    assert rc[:].apply_async(abs, -3).get(DEADLINE_S) == [3] * len(rc)
    assert rc.load_balanced_view().apply_async(abs, -3).get(DEADLINE_S) == 3
    assert not rc.session._requests


def test_an_argument_that_cannot_be_pickled_is_named(rc: Client) -> None:
    lock = threading.Lock()
    for view in (rc[:], rc.load_balanced_view()):
        with pytest.raises(PackError, match="argument 2 of abs"):
            view.apply_async(abs, 1, lock)
        with pytest.raises(PackError, match=r"keyword 'where'"):
            view.apply_async(abs, 1, where={"deep": [lock]})
        with pytest.raises(PackError):
            view.map_sync(abs, [1, lock, 3])


def test_a_function_that_cannot_be_pickled_is_named(rc: Client) -> None:
    lock = threading.Lock()

    def locked() -> bool:
        return lock.locked()

    with pytest.raises(PackError, match="locked"):
        rc[0].apply_async(locked)
    with pytest.raises(PackError, match="not callable"):
        rc[0].apply_async(3)  # type: ignore[arg-type]


def test_a_result_that_cannot_be_pickled_comes_back_as_an_error(rc: Client) -> None:
    make = in_a_notebook("def make():\n    import threading\n    return [1, threading.Lock()]")
    with pytest.raises(RemoteError, match="PackError: the result"):
        rc[0].apply_async(make).get(DEADLINE_S)
    with pytest.raises(RemoteError, match="PackError: the result"):
        rc.load_balanced_view().apply_async(make).get(DEADLINE_S)


def test_an_exception_that_cannot_be_shown_is_still_an_error(rc: Client) -> None:
    raise_it = in_a_notebook(
        "def raise_it():\n"
        "    class Shy(Exception):\n"
        "        def __str__(self): raise RuntimeError('no')\n"
        "        def __reduce__(self): raise RuntimeError('no')\n"
        "    raise Shy"
    )
    with pytest.raises(RemoteError) as caught:
        rc[0].apply_async(raise_it).get(DEADLINE_S)
    assert caught.value.ename == "Shy"


def test_a_result_that_only_the_engine_can_rebuild(rc: Client) -> None:
    rc[0].execute(
        "import types, sys; sys.modules['only_here'] = m = types.ModuleType('only_here')\n"
        "exec('class Thing: pass', m.__dict__); m.Thing.__module__ = 'only_here'",
        block=True,
    )
    result = rc[0].apply_async(in_a_notebook("def make():\n    import only_here\n    return only_here.Thing()"))
    with pytest.raises(UserError, match="only_here"):
        result.get(DEADLINE_S)


def test_an_engine_that_does_not_exist(rc: Client) -> None:
    for targets in (99, [0, 99], -99):
        with pytest.raises(UnknownEngine, match="there is no engine"):
            rc[targets]
    with pytest.raises(UnknownEngine, match="named twice"):
        rc[[0, 0]]
    with pytest.raises(NoEngines):
        rc[99:]
    with pytest.raises(TypeError):
        rc["0"]  # type: ignore[index]


def test_the_client_refuses_what_is_no_name_or_no_mapping(rc: Client) -> None:
    with pytest.raises(TypeError, match="names must be strings"):
        rc[:].pull([1, 2])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="push takes a dict"):
        rc[:].push([("a", 1)])  # type: ignore[arg-type]


def test_an_argument_that_only_the_client_can_rebuild(rc: Client) -> None:
    module = sys.modules["only_at_the_client"] = types.ModuleType("only_at_the_client")
    exec("class Thing: pass", module.__dict__)
    module.Thing.__module__ = "only_at_the_client"
    try:
        with pytest.raises(RemoteError, match=r"UnpackError.*install the module"):
            rc[0].apply_async(repr, module.Thing()).get(DEADLINE_S)
        with pytest.raises(CompositeError):
            rc[:].apply_async(repr, module.Thing()).get(DEADLINE_S)
    finally:
        del sys.modules["only_at_the_client"]


def test_recursion_and_memory_that_run_out_are_errors_of_the_call(rc: Client) -> None:
    forever = in_a_notebook("def forever():\n    def again(): return again()\n    return again()")
    with pytest.raises(RemoteError, match="RecursionError"):
        rc[0].apply_async(forever).get(DEADLINE_S)
    with pytest.raises(RemoteError, match="MemoryError"):
        rc[0].apply_async(bytes, 1 << 60).get(DEADLINE_S)


def test_more_engines_than_fit_are_refused_before_anything_starts(rc: Client) -> None:
    before = leftovers.census(search=True)
    with pytest.raises(CapacityError, match=r"\d+"):
        Cluster(ENGINES_MAX).start_cluster_sync()
    assert leftovers.describe(leftovers.left_since(before)) == []


def test_output_without_end_is_cut(rc: Client) -> None:
    call = rc[0].apply_async(in_a_notebook("def talk():\n    for _ in range(100): print('x' * 1_000_000)"))
    call.wait(DEADLINE_S)
    assert call.successful()
    assert call.stdout.endswith("[more output was dropped]\n")
    assert len(call.stdout) < 100_000_000

"""Which function runs on an engine: always the one the client has now, in the engine's namespace."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import hiersched as hs
from hiersched.client.client import Client
from hiersched.errors import RemoteError
from tests.patience import DEADLINE_S
from tests.processes.conftest import in_a_notebook


def test_a_notebook_function_sees_the_namespace_of_its_engine(rc: Client) -> None:
    rc[:].scatter("rank", list(rc.ids), flatten=True, block=True)
    where = in_a_notebook("def where(): return rank")
    assert rc[:].apply_sync(where) == rc.ids
    rc[2]["rank"] = "changed"
    assert rc[2].apply_sync(where) == "changed"


def test_a_notebook_function_can_leave_names_behind(rc: Client) -> None:
    rc[:].apply_sync(in_a_notebook("def remember(value):\n    global remembered\n    remembered = value"), 17)
    assert rc[:]["remembered"] == [17] * len(rc)


def test_a_function_that_was_sent_is_called_again_without_being_sent(rc: Client) -> None:
    double = in_a_notebook("def double(x): return 2 * x")
    assert rc[:].apply_sync(double, 1) == [2] * len(rc)
    before = rc.session.survey()[-1][2]["messages_out"]
    assert [rc[:].apply_sync(double, number) for number in range(10)] == [[2 * n] * len(rc) for n in range(10)]
    sent = rc.session.survey()[-1][2]["messages_out"] - before
    assert sent < 10 * (len(rc) + rc.plan.schedulers) + 20  # calls and replies, and no blobs


def test_a_redefined_function_is_noticed(rc: Client) -> None:
    for constant in (1, 2):
        f = in_a_notebook(f"def f(): return {constant}")
        assert rc[:].apply_sync(f) == [constant] * len(rc)
    f.__code__ = in_a_notebook("def f(): return 3").__code__
    assert rc[:].apply_sync(f) == [3] * len(rc)


def test_a_changed_default_is_noticed(rc: Client) -> None:
    f = in_a_notebook("def f(items=[1], *, by=1): return [item * by for item in items]")
    assert rc[0].apply_sync(f) == [1]
    f.__defaults__[0].append(2)
    assert rc[0].apply_sync(f) == [1, 2]
    f.__kwdefaults__ = {"by": 10}
    assert rc[0].apply_sync(f) == [10, 20]


def test_a_changed_closure_is_noticed(rc: Client) -> None:
    def counter() -> tuple[Callable[[], int], Callable[[int], None]]:
        count = 0

        def get() -> int:
            return count

        def put(value: int) -> None:
            nonlocal count
            count = value

        return get, put

    get, put = counter()
    for value in (0, 5, 6):
        put(value)
        assert rc[0].apply_sync(get) == value


def test_what_a_call_does_to_its_function_is_not_seen_by_the_next(rc: Client) -> None:
    hoard = in_a_notebook("def hoard(seen=[]):\n    seen.append(1)\n    return len(seen)")
    assert [rc[0].apply_sync(hoard) for _ in range(3)] == [1, 1, 1]


def test_functions_call_each_other_by_name_where_both_were_pushed(rc: Client) -> None:
    rc[:].push({"helper": in_a_notebook("def helper(x): return x + 1")}, block=True)
    assert rc[:].apply_sync(in_a_notebook("def use(x): return helper(x) * 10"), 1) == [20] * len(rc)


def test_classes_instances_and_lambdas_travel(rc: Client) -> None:
    cell: dict[str, object] = {"__name__": "__main__"}
    exec("class Point:\n    def __init__(self, x): self.x = x\n    def doubled(self): return 2 * self.x", cell)
    point = cell["Point"](21)  # type: ignore[operator]
    assert rc[0].apply_sync(lambda p: p.doubled(), point) == 42
    assert rc[0].apply_sync(point.doubled) == 42


def test_by_value_functions_bring_their_globals(rc: Client) -> None:
    everywhere = rc[:]
    everywhere.push({"offset": 1000}, block=True)
    add = in_a_notebook("offset = 7\ndef add(x): return x + offset")
    assert everywhere.apply_sync(add, 1) == [1001] * len(rc)
    everywhere.use_cloudpickle()
    assert everywhere.apply_sync(add, 1) == [8] * len(rc)


def test_a_reference_is_evaluated_on_each_engine(rc: Client) -> None:
    rc[:].scatter("rank", list(rc.ids), flatten=True, block=True)
    assert rc[:].apply_sync(divmod, hs.Reference("rank * 10"), 4) == [divmod(rank * 10, 4) for rank in rc.ids]


def test_decorated_functions_run_on_the_engines(rc: Client) -> None:
    pids = rc[:].remote(block=True)(os.getpid)
    squares = rc[:].parallel(block=True)(in_a_notebook("def squares(numbers): return [n * n for n in numbers]"))
    assert len(set(pids())) == len(rc)
    assert squares(range(20)) == [number * number for number in range(20)]


def test_the_traceback_shows_the_clients_source(rc: Client) -> None:
    def broken() -> float:
        zero = 0
        return 1 / zero  # this very line

    with pytest.raises(RemoteError) as caught:
        rc[0].apply_async(broken).get(DEADLINE_S)
    assert caught.value.engine_id == 0
    assert "this very line" in "\n".join(caught.value.traceback_lines)
    assert "hiersched/" not in "\n".join(caught.value.traceback_lines)

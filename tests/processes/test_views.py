"""Views of real clusters: terms of tasks, conditions, imports, and the control of what was called."""

from __future__ import annotations

import os

import pytest

import hiersched as hs
from hiersched.client.client import Client
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import Gate, in_a_notebook, pids_of


def test_tasks_stay_within_the_targets_of_their_view(rc: Client) -> None:
    view = rc.load_balanced_view([1, 3])
    results = [view.apply_async(os.getpid) for _ in range(40)]
    mapped = view.map_async(errands.square, range(100))
    executed = [view.executor.submit(os.getpid) for _ in range(10)]
    pids = {pids_of(rc)[1], pids_of(rc)[3]}
    assert {result.get(DEADLINE_S) for result in results} <= pids
    assert {future.result(DEADLINE_S) for future in executed} <= pids
    assert mapped.get(DEADLINE_S) == [number * number for number in range(100)]
    assert set(mapped.engine_id) <= {1, 3}


def test_a_task_runs_after_others_and_where_they_ran(rc: Client, gate: Gate) -> None:
    view = rc.load_balanced_view()
    first = view.apply_async(errands.hold, str(gate))
    with view.temp_flags(after=first):
        after = [view.apply_async(abs, -number) for number in range(5)]
    with view.temp_flags(follow=first.msg_ids[0]):
        follow = view.apply_async(abs, -7)
    gate.wait_for(1)
    assert not any(result.done() for result in after)
    gate.open()
    assert [result.get(DEADLINE_S) for result in after] == list(range(5))
    assert all(result.started >= first.completed for result in after)
    assert follow.get(DEADLINE_S) == 7
    assert follow.engine_id == first.engine_id


def test_a_dependency_that_failed_is_reported(rc: Client) -> None:
    view = rc.load_balanced_view()
    failing = view.apply_async(errands.reciprocal, 0)
    with view.temp_flags(after=failing), pytest.raises(hs.DependencyError):
        view.apply_async(abs, -1).get(DEADLINE_S)
    with view.temp_flags(after=hs.Dependency(failing, success=False, failure=True)):
        assert view.apply_async(abs, -1).get(DEADLINE_S) == 1
    with view.temp_flags(after="12345"), pytest.raises(hs.UnknownTask):
        view.apply_async(abs, -1)


def test_a_task_goes_where_its_condition_holds(rc: Client) -> None:
    rc[2].push({"licensed": True}, block=True)
    work = hs.depend(in_a_notebook("def has_licence(): return 'licensed' in globals()"))(os.getpid)
    view = rc.load_balanced_view()
    pid = pids_of(rc)[2]
    assert {view.apply_async(work).get(DEADLINE_S) for _ in range(5)} == {pid}
    rc[2].clear(block=True)
    with pytest.raises(hs.DependencyError):
        view.apply_async(work).get(DEADLINE_S)


def test_what_is_required_is_there_however_it_is_shipped(rc: Client) -> None:
    use = in_a_notebook("def use(x): return colorsys.rgb_to_hsv(x, x, x)[2] * scale")
    required = hs.require("colorsys", scale=3)(use)
    view = rc.load_balanced_view()
    assert view.apply_async(required, 2).get(DEADLINE_S) == 6
    assert view.map_async(required, [1, 2]).get(DEADLINE_S) == [3, 6]
    assert list(view.executor.map(required, [1, 2])) == [3, 6]
    assert rc[0].apply_async(required, 1).get(DEADLINE_S) == 3
    with pytest.raises(hs.DependencyError):
        view.apply_async(hs.require("no_such_module_anywhere")(use), 1).get(DEADLINE_S)


def test_what_fails_is_tried_again(rc: Client, tmp_path) -> None:
    fails_first = in_a_notebook(
        "def fails_first(mark):\n"
        "    try: open(mark, 'x').close()\n"
        "    except FileExistsError: return mark\n"
        "    raise RuntimeError('the first time')"
    )
    view = rc.load_balanced_view(retries=3)
    marks = [str(tmp_path / str(number)) for number in range(10)]
    assert view.apply_async(fails_first, str(tmp_path / "one")).get(DEADLINE_S) == str(tmp_path / "one")
    assert view.map_async(fails_first, marks).get(DEADLINE_S) == marks
    with pytest.raises(hs.RemoteError, match="division by zero"):
        view.apply_async(errands.reciprocal, 0).get(DEADLINE_S)


def test_imports_reach_the_engines(rc: Client) -> None:
    with rc[:].sync_imports(quiet=True):
        import colorsys as colours
        from string import Template
    assert colours.__name__ == Template("$a").substitute(a="colorsys")
    assert rc[:].apply_sync(in_a_notebook("def f(): return colours.__name__, Template.__name__")) == [
        ("colorsys", "Template")
    ] * len(rc)


def test_what_waits_can_be_withdrawn_and_what_runs_goes_on(rc: Client, gate: Gate) -> None:
    view = rc[0]
    running = view.apply_async(errands.hold, str(gate), "held")
    gate.wait_for(1)
    waiting = [view.apply_async(abs, -number) for number in range(5)]
    assert len(view.outstanding) == 6
    view.abort(waiting[0])
    view.abort()
    until(lambda: all(result.done() for result in waiting), "what waits is withdrawn")
    for result in waiting:
        with pytest.raises(hs.TaskCancelled):
            result.get(DEADLINE_S)
    gate.open()
    assert running.get(DEADLINE_S) == "held"
    assert view.wait(timeout=DEADLINE_S)
    assert view.outstanding == set()
    assert view.get_result(0).get(DEADLINE_S) == "held"


def test_a_map_can_be_withdrawn(rc: Client, gate: Gate) -> None:
    view = rc.load_balanced_view()
    mapped = view.map_async(errands.hold, [str(gate)] * 1_000, chunksize=1)
    gate.wait_for(len(rc))
    view.abort()
    gate.open()
    with pytest.raises(hs.TaskCancelled):
        mapped.get(DEADLINE_S)
    assert view.wait(timeout=DEADLINE_S)


def test_queues_are_counted(rc: Client, gate: Gate) -> None:
    held = rc[1].apply_async(errands.hold, str(gate))
    gate.wait_for(1)
    behind = rc[1].apply_async(abs, -1)
    until(lambda: rc[1].queue_status()["queue"] == 2, "both calls are counted")
    assert rc[:2].queue_status()[0]["queue"] == 0
    gate.open()
    assert (held.get(DEADLINE_S), behind.get(DEADLINE_S)) == (None, 1)


def test_a_label_goes_with_a_task(rc: Client, gate: Gate) -> None:
    view = rc.load_balanced_view(label="mine")
    first = view.apply_async(errands.hold, str(gate))
    with view.temp_flags(after=first, label="behind"):
        behind = view.apply_async(abs, -1)
    gate.wait_for(1)
    until(lambda: rc.why(behind).state == "dependency", "the root has the task")
    assert str(rc.why(behind)).startswith("'behind' dependency: ")
    assert (first.label, behind.metadata["label"]) == ("mine", "behind")
    gate.open()
    assert behind.get(DEADLINE_S) == 1


def test_a_broadcast_view_gives_lists(rc: Client) -> None:
    ids = rc.ids[::-1]
    view = rc.broadcast_view(ids, is_coalescing=True, block=True)
    view.scatter("rank", ids, flatten=True)
    assert view["rank"] == ids
    assert rc.broadcast_view(1).apply_sync(abs, -1) == [1]
    assert view.map(errands.square, range(20)) == [number * number for number in range(20)]

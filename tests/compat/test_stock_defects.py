"""What ipyparallel's own controller or client does wrong, and ours must not.

Each test is the story of one defect, told once for all sides: our client and ipyparallel's with our controller, which
have it right, and ipyparallel's client with ipyparallel's controller, which has not (run with `-m slow`, and expected
to fail). Where ipyparallel's client is at fault, only ours has it right.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import ipyparallel
import pytest
from ipyparallel import error
from jupyter_client.session import Session

import hiersched
from tests.compat import deeds, either, launched
from tests.compat.either import OLD_ENGINES, OURS, STOCK, AnyClient, Setup
from tests.patience import DEADLINE_S, until
from tests.processes.conftest import Gate
from tests.processes.errands import hold

pytestmark = pytest.mark.processes

ENGINES = 4
ENDS_AT_ONCE_S = 1.0
STUCK_AFTER_S = 5.0  # what ipyparallel's controller has not done by then it never does
DEPTH_0 = "--IPController.broadcast_scheduler_depth=0"
THREADS = "--usethreads"
NO_DATABASE = "--nodb"
BROADCASTS = 20
ID_BYTES = 1 << 20


def defect(
    what: str, *, of: str, ours: Setup = OURS, stock: Setup = STOCK, fails: type[BaseException] = AssertionError
) -> Callable[..., object]:
    """One of ipyparallel's. of: its "controller", its "client", or its "hub", which our client does not ask.
    fails: how the test then does.

    The order of sides is that of the clusters, which are started anew whenever another one is wanted.
    """
    wrong = pytest.mark.xfail(reason=what, raises=fails, strict=True)
    sides = [pytest.param(stock, ipyparallel.Client, marks=[pytest.mark.slow, wrong], id="stock")]
    if ours == OURS and of != "hub":
        sides.append(pytest.param(ours, hiersched.Client, id="our-client"))
    if of != "client":
        sides.append(pytest.param(ours, ipyparallel.Client, id="our-controller"))
    return pytest.mark.parametrize(("cluster", "rc"), sides, indirect=True, scope="module")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipyparallel.Cluster]:
    """A cluster of four engines."""
    with either.running(request.param, tmp_path_factory.mktemp("ipython"), n=ENGINES) as made:
        yield made


@pytest.fixture
def rc(request: pytest.FixtureRequest, cluster: ipyparallel.Cluster) -> Iterator[AnyClient]:
    """A client of the side's kind."""
    with either.connect(cluster, request.param) as connected:
        connected.wait_for_engines(1, timeout=DEADLINE_S)
        yield connected


@pytest.fixture
def bound_s(cluster: ipyparallel.Cluster) -> float:
    """How long to wait for what may never come."""
    return DEADLINE_S if cluster.controller_launcher_class.__module__.startswith("hiersched") else STUCK_AFTER_S


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Where engines wait to be let go."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def pids_of(rc: AnyClient) -> list[int]:
    """The processes of the engines, by their ids."""
    return rc[:].apply_sync(os.getpid)


def one_fails_early(rc: AnyClient, gate: Gate) -> tuple[list[int], hiersched.AsyncResult | ipyparallel.AsyncResult]:
    """The engines' processes, and one answer for all, where the first engine has failed before the others went on."""
    pids = pids_of(rc)
    answer = rc.broadcast_view(is_coalescing=True).apply_async(deeds.fail_or_hold, str(gate), pids[0])
    gate.wait_for(len(pids) - 1)
    rc[rc.ids[0]].apply_sync(os.getpid)  # what this engine has answered before is on its way
    gate.open()
    return pids, answer


# --- one answer for all -----------------------------------------------------------------------------------------------


@defect("results come in the order of the leaf schedulers", of="controller")
def test_one_answer_for_all_has_their_results_in_the_order_of_the_targets(rc: AnyClient, bound_s: float) -> None:
    answer = rc.broadcast_view(is_coalescing=True).apply_async(os.getpid)
    assert answer.get(timeout=bound_s) == pids_of(rc)
    assert answer.engine_id == rc.ids


@defect("an error is forgotten unless it is the last answer to come", of="controller", fails=pytest.fail.Exception)
def test_an_error_is_told_however_early_it_came(rc: AnyClient, gate: Gate, bound_s: float) -> None:
    _, answer = one_fails_early(rc, gate)
    with pytest.raises(error.RemoteError, match="fails at once"):
        answer.get(timeout=bound_s)


@defect("one error takes the place of all results", of="client")
def test_what_the_others_computed_is_there_beside_an_error(rc: AnyClient, gate: Gate, bound_s: float) -> None:
    pids, answer = one_fails_early(rc, gate)
    first, *others = answer.get(timeout=bound_s, return_exceptions=True)
    assert others == pids[1:]
    assert isinstance(first, error.RemoteError)


@defect("the end of the output of a call that has one answer is not told", of="controller")
def test_the_output_of_a_call_with_one_answer_is_told_to_its_end(rc: AnyClient, bound_s: float) -> None:
    answer = rc.broadcast_view(is_coalescing=True).apply_async(deeds.say_pid)
    assert answer.wait_for_output(bound_s)
    assert sorted(map(int, "".join(answer.stdout).split())) == sorted(pids_of(rc))


@defect(
    "engines know a call with one answer by other ids than the client", of="controller", fails=pytest.fail.Exception
)
def test_a_call_with_one_answer_is_withdrawn(rc: AnyClient, gate: Gate, tmp_path: Path, bound_s: float) -> None:
    holding = rc[:].apply_async(hold, str(gate))
    gate.wait_for(len(holding.msg_ids))
    answer = rc.broadcast_view(is_coalescing=True).apply_async(deeds.leave_a_mark, str(tmp_path))
    rc.abort(answer, block=True)
    answer.wait(ENDS_AT_ONCE_S)  # with ipyparallel's controller it would when its turn comes
    gate.open()
    with pytest.raises(error.TaskAborted):
        answer.get(timeout=bound_s)
    assert list(tmp_path.glob("mark-*")) == []


# --- what is known of broadcasts --------------------------------------------------------------------------------------


@defect("the hub never hears of broadcasts", of="hub")
def test_the_hub_has_broadcasts_in_its_queues_and_history(rc: AnyClient, gate: Gate, bound_s: float) -> None:
    answer = rc.broadcast_view().apply_async(hold, str(gate))
    gate.wait_for(len(rc.ids))
    status = rc.queue_status()
    assert [status[engine]["queue"] for engine in rc.ids] == [1] * len(rc.ids)
    gate.open()
    answer.get(timeout=bound_s)
    assert set(answer.msg_ids) <= set(rc.hub_history())


@defect("a client never forgets the id of a broadcast", of="client")
def test_a_broadcast_that_has_ended_leaves_nothing_in_the_client(rc: AnyClient, bound_s: float) -> None:
    view, together = rc.broadcast_view(), rc.broadcast_view(is_coalescing=True)

    def objects_after_calls() -> int:
        for _ in range(BROADCASTS):
            view.apply_sync(os.getpid)
            together.apply_sync(os.getpid)
        gc.collect()
        return len(gc.get_objects())

    objects_after_calls()
    assert rc.wait(timeout=bound_s)
    assert not rc.outstanding
    before = objects_after_calls()
    gathered = objects_after_calls() - before
    assert gathered < 3 * BROADCASTS  # of the latest calls it knows the ids: one weak reference for each


@defect("a view of all engines is one of those that were there when it was made", of="client", fails=KeyError)
def test_a_view_of_all_engines_is_of_those_that_are_there(rc: AnyClient, bound_s: float) -> None:
    view = rc.broadcast_view()
    lost = rc.ids[-1]
    launched.kill(rc[lost].apply_sync(os.getpid))
    until(lambda: lost not in rc.ids, "the engine is gone")
    assert view.apply_async(os.getpid).get(timeout=bound_s) == pids_of(rc)


# --- other clusters ---------------------------------------------------------------------------------------------------


@defect(
    "a leaf scheduler that is the root gives the client targets of another form",
    of="controller",
    ours=Setup("hiersched", "hiersched", (DEPTH_0,)),
    stock=Setup("", "", (DEPTH_0,)),
)
def test_there_is_one_answer_for_all_from_a_tree_of_depth_0(rc: AnyClient, bound_s: float) -> None:
    assert rc.broadcast_view(is_coalescing=True).apply_async(os.getpid).wait(bound_s)


@defect(
    "schedulers that are threads share what each has gathered",
    of="controller",
    ours=Setup("hiersched", "hiersched", (THREADS,)),
    stock=Setup("", "", (THREADS,)),
)
def test_there_is_one_answer_for_all_from_schedulers_that_are_to_be_threads(rc: AnyClient, bound_s: float) -> None:
    assert rc.broadcast_view(is_coalescing=True).apply_async(os.getpid).wait(bound_s)


@defect(
    "leaf schedulers without targets keep the id of a broadcast for ever",
    of="controller",
    ours=Setup("hiersched", "hiersched", (NO_DATABASE,)),
    stock=Setup("", "", (NO_DATABASE,)),
)
def test_a_broadcast_to_some_leaves_nothing_in_the_schedulers(
    cluster: ipyparallel.Cluster, rc: AnyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count()
    weighty = property(lambda session: f"{session.session}_{next(numbers)}".ljust(ID_BYTES, "_"))
    monkeypatch.setattr(Session, "msg_id", weighty)  # so that what is kept of each can be seen
    view = rc.broadcast_view([0], is_coalescing=True)

    def memory_after(calls: int) -> int:
        for _ in range(calls):
            view.apply_sync(os.getpid)
        rc.purge_everything()  # the hub remembers ids until then
        return sum(process.memory_info().rss for process in launched.processes_of(cluster))

    before = memory_after(BROADCASTS)
    assert memory_after(2 * BROADCASTS) - before < BROADCASTS * ID_BYTES


@defect("each engine is told of all targets of its leaf scheduler", of="controller", ours=OLD_ENGINES)
def test_an_engine_is_not_told_of_the_others(rc: AnyClient) -> None:
    assert max(rc.broadcast_view().apply_sync(deeds.targets_told)) <= 1


@defect("what a leaf scheduler had in its hands is never answered when it dies", of="controller", ours=OLD_ENGINES)
def test_a_broadcast_ends_when_a_leaf_scheduler_dies(
    cluster: ipyparallel.Cluster, rc: AnyClient, gate: Gate, bound_s: float
) -> None:
    answer = rc.broadcast_view().apply_async(hold, str(gate))
    engines = len(rc.ids)
    gate.wait_for(engines)
    either.listener(cluster, launched.info(cluster)["engine"]["broadcast"][0]).kill()
    gate.open()
    assert answer.wait(bound_s)
    assert [part.ename for part in answer.get(return_exceptions=True)] == ["EngineError"] * engines
    until(lambda: not rc.ids, "its engines are gone")

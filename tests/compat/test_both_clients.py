"""A client of ours and one of ipyparallel's on the same cluster: the same engines, ids and names."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ipyparallel
import numpy as np
import pytest
from ipyparallel import error

import hiersched
from tests.compat import either, launched
from tests.compat.either import OURS, AnyClient
from tests.patience import DEADLINE_S, until
from tests.processes.conftest import Gate, in_a_notebook
from tests.processes.errands import hold, square

pytestmark = pytest.mark.processes

ENGINES = 3
ID = "shared"


class Pair(NamedTuple):
    """One client of each kind."""

    ours: hiersched.Client
    theirs: ipyparallel.Client

    def until_both(self, condition: Callable[[AnyClient], object], what: str) -> None:
        """Wait until it holds for both."""
        for rc in self:
            until(lambda rc=rc: condition(rc), f"{type(rc).__module__} sees that {what}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipyparallel.Cluster]:
    """A cluster of ours that ipyparallel has started."""
    with either.running(OURS, tmp_path_factory.mktemp("ipython"), n=ENGINES, cluster_id=ID) as made:
        yield made


@pytest.fixture
def both(cluster: ipyparallel.Cluster) -> Iterator[Pair]:
    """A client of each kind."""
    with either.connect(cluster, hiersched.Client) as ours, either.connect(cluster, ipyparallel.Client) as theirs:
        pair = Pair(ours, theirs)
        pair.until_both(lambda rc: len(rc.ids) == cluster.n, "all engines are there")
        yield pair


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[ipyparallel.Cluster, Pair]]:
    """A cluster to be spoilt, and a client of each kind."""
    with (
        either.running(OURS, tmp_path, n=ENGINES) as made,
        either.connect(made, hiersched.Client) as ours,
        either.connect(made, ipyparallel.Client) as theirs,
    ):
        pair = Pair(ours, theirs)
        pair.until_both(lambda rc: rc.ids == [0, 1, 2], "all engines are there")
        yield made, pair


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Where engines wait to be let go."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


writers = pytest.mark.parametrize(("writer", "reader"), [("ours", "theirs"), ("theirs", "ours")])


# --- finding the cluster ----------------------------------------------------------------------------------------------


def test_one_file_leads_both_to_the_cluster(cluster: ipyparallel.Cluster) -> None:
    file = cluster.controller.connection_files["client"]
    for kind in (hiersched.Client, ipyparallel.Client):
        with kind(file) as rc:
            rc.wait_for_engines(ENGINES, timeout=DEADLINE_S)


@pytest.mark.parametrize("how", ["cluster_id", "profile_dir", "profile"])
def test_both_find_it_alike(cluster: ipyparallel.Cluster, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(Path(cluster.profile_dir).parent))
    arguments = {"cluster_id": ID} | {
        "profile_dir": {"profile_dir": cluster.profile_dir},
        "profile": {"profile": "default"},
    }.get(how, {})
    for kind in (hiersched.Client, ipyparallel.Client):
        with kind(**arguments) as rc:
            rc.wait_for_engines(ENGINES, timeout=DEADLINE_S)


# --- the same engines -------------------------------------------------------------------------------------------------


def test_both_see_the_same_engines_by_the_same_ids(both: Pair) -> None:
    assert both.ours.ids == both.theirs.ids == list(range(ENGINES))
    assert both.ours[:].apply_sync(os.getpid) == both.theirs[:].apply_sync(os.getpid)


@writers
def test_what_one_pushes_the_other_pulls(both: Pair, writer: str, reader: str) -> None:
    data = np.arange(100_000)
    left, right = getattr(both, writer)[:], getattr(both, reader)[:]
    left.push({"pushed": (writer, data)}, block=True)
    for name, array in right.pull("pushed", block=True):
        assert name == writer
        np.testing.assert_array_equal(array, data)
    left.scatter("share", list(range(7)), block=True)
    assert right.gather("share", block=True) == list(range(7))


@writers
def test_what_one_defines_the_other_uses(both: Pair, writer: str, reader: str) -> None:
    left, right = getattr(both, writer)[:], getattr(both, reader)[:]
    left.execute(f"def double(x): return 2 * x\nlast = {writer!r}", block=True)
    use = in_a_notebook("def use(number): return double(number)")
    assert right.apply_sync(use, 21) == [42] * ENGINES
    right.execute("last = last + '!'", block=True)
    assert left.pull("last", block=True) == [f"{writer}!"] * ENGINES


@writers
def test_an_error_is_the_same_for_both(both: Pair, writer: str, reader: str) -> None:
    told = []
    for name in (writer, reader):
        with pytest.raises(error.RemoteError) as caught:
            getattr(both, name)[1].apply_sync(int, "seven")
        told.append((caught.value.ename, caught.value.evalue))
    assert told[0] == told[1]
    assert told[0][0] == "ValueError"


@writers
def test_output_is_told_to_who_asked_for_it_alone(both: Pair, writer: str, reader: str) -> None:
    speaking = getattr(both, writer)[:].apply_async(print, f"for {writer}")
    silent = getattr(both, reader)[:].apply_async(os.getpid)
    for answer in (speaking, silent):
        answer.get(timeout=DEADLINE_S)
        assert answer.wait_for_output(DEADLINE_S)
    assert speaking.stdout == [f"for {writer}\n"] * ENGINES
    assert silent.stdout == [""] * ENGINES


# --- at the same time -------------------------------------------------------------------------------------------------


def test_tasks_of_both_run_side_by_side(both: Pair) -> None:
    maps = [rc.load_balanced_view().map_async(square, range(200)) for rc in both]
    for answer in maps:
        assert answer.get(timeout=DEADLINE_S) == [number * number for number in range(200)]


def test_a_task_of_one_waits_where_one_of_the_other_runs(both: Pair, gate: Gate) -> None:
    first = [both.ours.load_balanced_view().apply_async(hold, str(gate)) for _ in range(ENGINES)]
    gate.wait_for(ENGINES)  # each engine has one
    later = both.theirs.load_balanced_view().apply_async(os.getpid)
    direct = both.theirs[0].apply_async(os.getpid)
    assert not both.theirs.wait([later, direct], timeout=0.1)
    gate.open()
    assert later.get(timeout=DEADLINE_S) in gate.come()
    assert direct.get(timeout=DEADLINE_S) in gate.come()
    for task in first:
        task.get(timeout=DEADLINE_S)


def test_threads_of_both_call_the_same_engines(both: Pair) -> None:
    results: dict[str, list[list[int]]] = {"ours": [], "theirs": []}

    def call(name: str) -> None:
        view = getattr(both, name)[:]
        results[name] = [view.apply_sync(square, number) for number in range(50)]

    threads = [threading.Thread(target=call, args=(name,)) for name in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert results["ours"] == results["theirs"] == [[number * number] * ENGINES for number in range(50)]


@writers
def test_what_one_withdraws_is_not_what_the_other_asked(both: Pair, gate: Gate, writer: str, reader: str) -> None:
    stopping, going_on = getattr(both, writer), getattr(both, reader)
    held = going_on[:].apply_async(hold, str(gate))
    gate.wait_for(ENGINES)
    withdrawn, wanted = stopping[:].apply_async(os.getpid), going_on[:].apply_async(os.getpid)
    stopping.abort(withdrawn, block=True)
    assert withdrawn.wait(DEADLINE_S)
    gate.open()
    assert all(isinstance(part, error.TaskAborted) for part in withdrawn.get(return_exceptions=True))
    assert held.get(timeout=DEADLINE_S) == [None] * ENGINES
    assert set(wanted.get(timeout=DEADLINE_S)) == gate.come()


# --- how engines and clusters end -------------------------------------------------------------------------------------


def test_an_engine_that_dies_is_gone_for_both(fresh: tuple[ipyparallel.Cluster, Pair], gate: Gate) -> None:
    _, both = fresh
    pids = both.theirs[:].apply_sync(os.getpid)
    calls = [rc[:].apply_async(hold, str(gate), "held") for rc in both]
    gate.wait_for(ENGINES)
    launched.kill(pids[1])
    both.until_both(lambda rc: rc.ids == [0, 2], "one is gone")
    gate.open()
    for call in calls:
        first, lost, last = call.get(timeout=DEADLINE_S, return_exceptions=True)
        assert (first, lost.ename, last) == ("held", "EngineError", "held")
    assert both.ours[:].apply_sync(os.getpid) == both.theirs[:].apply_sync(os.getpid) == [pids[0], pids[2]]


def test_engines_that_come_are_there_for_both(fresh: tuple[ipyparallel.Cluster, Pair]) -> None:
    made, both = fresh
    made.start_engines_sync(1)
    both.until_both(lambda rc: rc.ids == [0, 1, 2, 3], "another engine has come")
    both.theirs[3].push({"newcomer": True}, block=True)
    assert both.ours[3].pull("newcomer", block=True)


@pytest.mark.parametrize("who", Pair._fields)
def test_engines_that_one_shuts_down_are_gone_for_both(fresh: tuple[ipyparallel.Cluster, Pair], who: str) -> None:
    _, both = fresh
    getattr(both, who).shutdown(targets=[0], block=True)
    both.until_both(lambda rc: rc.ids == [1, 2], "one is gone")


@pytest.mark.parametrize("who", Pair._fields)
def test_a_cluster_that_one_shuts_down_ends_for_both(fresh: tuple[ipyparallel.Cluster, Pair], who: str) -> None:
    made, both = fresh
    pids = [process.pid for process in launched.processes_of(made)] + [made.engine_set.pid]
    getattr(both, who).shutdown(hub=True)
    launched.until_gone(pids)
    assert not list(Path(made.profile_dir, "security").glob("ipcontroller*"))
    with pytest.raises(hiersched.ClusterLost):
        both.ours[:].apply_async(os.getpid).get(timeout=DEADLINE_S)

"""Large data: sent once, never changed on the way, asked for again when dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import RemoteError
from tests.patience import DEADLINE_S
from tests.processes import errands
from tests.processes.conftest import DEEP

LARGE = 250_000  # numbers of eight bytes
SMALL_STORES = """
from hiersched.core.blobs import BlobLedger
from hiersched.nodes import engine
engine.BLOB_ENGINE_BYTES_MAX = 3_000_000
BlobLedger.__init__.__kwdefaults__["bytes_max"] = 3_000_000
"""


def test_a_result_is_what_it_was_when_the_call_ended(flat_rc: Client) -> None:
    one = flat_rc[0]
    one.execute("import numpy as np; large = np.zeros(1_000_000)", block=True)
    for expected in range(10):
        before = one.pull("large")
        one.execute("large += 1")
        np.testing.assert_array_equal(before.get(DEADLINE_S), np.full(1_000_000, expected))


def test_results_of_tasks_are_what_they_were_when_each_ended(flat_rc: Client) -> None:
    flat_rc[:].execute("import numpy as np; scratch = np.zeros(20_000)", block=True)
    reuse = _reuse_scratch()
    tasks = [flat_rc.load_balanced_view().apply_async(reuse, number) for number in range(200)]
    for number, task in enumerate(tasks):
        np.testing.assert_array_equal(task.get(DEADLINE_S), np.full(20_000, number))


def test_an_argument_is_what_it_was_when_the_call_was_made(rc: Client) -> None:
    array = np.zeros(LARGE)
    calls = []
    for _ in range(10):
        calls.append(rc[:].apply_async(errands.total, array))
        array += 1
    assert [call.get(DEADLINE_S) for call in calls] == [[float(n * LARGE)] * len(rc) for n in range(10)]


def test_an_engine_cannot_change_what_others_share(rc: Client) -> None:
    array = np.ones(LARGE)
    with pytest.raises(RemoteError, match="read-only"):
        rc[0].apply_sync(errands.spoil, array)
    assert rc[:].apply_sync(errands.total, array) == [float(LARGE)] * len(rc)


def test_equal_data_travels_once(rc: Client) -> None:
    array = np.random.default_rng(7).random(LARGE)
    first = rc[:].apply_sync(errands.total, array)
    held = rc.session.survey()[0][2]["blob_bytes"]
    assert rc[:].apply_sync(errands.total, array.copy()) == first
    assert rc.session.survey()[0][2]["blob_bytes"] == held


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A deep tree whose engines and lower schedulers keep little more than one large array."""
    directory = tmp_path_factory.mktemp("preloaded")
    (directory / "small_stores.py").write_text(SMALL_STORES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        cluster = Cluster(**DEEP, preload=["small_stores"])
        with cluster:
            yield cluster


def test_data_that_was_dropped_is_asked_for_again(forgetful: Cluster) -> None:
    arrays = [np.full(LARGE, float(number)) for number in range(4)]
    with Client(forgetful.connection_file) as rc:
        for _ in range(2):
            for array in arrays:
                assert rc[:].apply_async(errands.total, array).get(DEADLINE_S) == [float(array.sum())] * len(rc)
        tasks = [rc.load_balanced_view().apply_async(errands.total, arrays[n % 4]) for n in range(40)]
        assert [task.get(DEADLINE_S) for task in tasks] == [float(arrays[n % 4].sum()) for n in range(40)]


def test_a_call_may_need_more_than_an_engine_keeps(forgetful: Cluster) -> None:
    first, second = np.ones(2 * LARGE), np.full(2 * LARGE, 2.0)
    with Client(forgetful.connection_file) as rc:
        expected = (4 * LARGE, 6.0 * LARGE)
        assert rc[:].apply_async(errands.count_and_total, first, second).get(DEADLINE_S) == [expected] * len(rc)
        task = rc.load_balanced_view().apply_async(errands.count_and_total, second, first)
        assert task.get(DEADLINE_S) == expected


def test_a_dropped_function_is_asked_for_again(forgetful: Cluster) -> None:
    padding = "x" * 2_000_000
    functions = [_padded(number, padding) for number in range(4)]
    with Client(forgetful.connection_file) as rc:
        for _ in range(2):
            assert [rc[:].apply_async(f).get(DEADLINE_S) for f in functions] == [[2_000_000 + n] * 8 for n in range(4)]


def test_data_of_another_client_that_has_left_is_not_lost_to_this_one(forgetful: Cluster, tmp_path: Path) -> None:
    array, other = np.full(LARGE, 3.0), np.full(LARGE, 4.0)
    with Client(forgetful.connection_file) as rc:
        with Client(forgetful.connection_file) as leaver:
            assert leaver[:].apply_async(errands.total, array).get(DEADLINE_S) == [3.0 * LARGE] * 8
        assert rc[:].apply_async(errands.total, other).get(DEADLINE_S) == [4.0 * LARGE] * 8
        assert rc[:].apply_async(errands.total, array).get(DEADLINE_S) == [3.0 * LARGE] * 8


def _padded(number: int, padding: str) -> object:
    return lambda: len(padding) + number


def _reuse_scratch() -> object:
    from tests.processes.conftest import in_a_notebook

    return in_a_notebook("def reuse(number):\n    scratch[:] = number\n    return scratch")

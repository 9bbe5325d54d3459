"""A call of ours in an engine of ipyparallel's: packed at the leaf, run as that engine does it, its outcome read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.serialize import serialize_object, unpack_apply_message

from hiersched.compat import guest_side
from hiersched.compat.guest_calls import pack_own
from hiersched.compat.guest_side import outcome_in
from hiersched.data import namespace
from hiersched.data.outcomes import Outcome, PackedOutcome, pack_outcome_value, unpack_outcome
from hiersched.data.serialize import Packer, Reference
from hiersched.errors import ProtocolError, RemoteError, UnmetDependency
from hiersched.limits import INLINE_BYTES_MAX
from hiersched.protocol.messages import INTERRUPTED, RAISED, UNMET

USER: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The engine's namespace, with `a` in it."""
    USER.clear()
    USER["a"] = 5
    before = namespace.user_namespace
    monkeypatch.setattr(guest_side, "get_ipython", lambda: SimpleNamespace(user_ns=USER))
    guest_side._unpacker.cache_clear()
    yield USER
    guest_side._unpacker.cache_clear()
    namespace.bind(before)


def packed_outcome(function: Callable[..., Any], *args: Any, **results: Any) -> PackedOutcome:
    """What the leaf gets of a call. results: by task, as `task_1=...`."""
    call = Packer().pack_call(function, args)
    given = {int(name[5:]): pack_outcome_value(value, started=1, ended=2).frames for name, value in results.items()}
    buffers = pack_own(call.function, call.frames, call.blobs, given)
    asked, arguments, keywords = unpack_apply_message([bytes(buffer) for buffer in buffers], USER, copy=False)
    answer: Sequence[Any] = serialize_object(asked(*arguments, **keywords))
    return outcome_in([bytes(buffer) for buffer in answer])


def run(function: Callable[..., Any], *args: Any, **results: Any) -> Outcome:
    return unpack_outcome(packed_outcome(function, *args, **results).whole)


def fail(error: BaseException) -> None:
    raise error


def test_a_value_comes_back():
    outcome = run(divmod, 17, 5)
    assert outcome.value == (3, 2)
    assert outcome.started <= outcome.ended


def test_code_sees_the_engines_own_namespace_and_so_do_references():
    assert run(abs, Reference("a")).value == 5
    run(namespace.push)
    assert run(namespace.pull, "a").value == 5


def test_large_arrays_travel_beside_their_pickles():
    array = np.arange(INLINE_BYTES_MAX, dtype=np.float64)
    outcome = run(np.negative, array)
    np.testing.assert_array_equal(outcome.value, -array)


class ResultOfTask7:
    """What stands for the result of a task."""

    def __hiersched_result__(self) -> tuple[int, None, None]:
        return 7, None, None


def test_results_of_other_tasks_are_arguments():
    assert run(abs, ResultOfTask7(), task_7=-12).value == 12


def test_nothing_comes_back_as_nothing():
    assert run(namespace.clear).value is None


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("no"), RAISED), (KeyboardInterrupt(), INTERRUPTED), (UnmetDependency("no"), UNMET)]
)
def test_what_the_code_raises_is_told_by_its_code(error: BaseException, code: int):
    packed = packed_outcome(fail, error)
    assert packed.code == code
    failed = unpack_outcome(packed.whole).error
    assert isinstance(failed, RemoteError)
    assert failed.ename == type(error).__name__


class Unshowable(Exception):
    """Code that looks at its arguments fails."""

    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError


def test_an_exception_that_cannot_be_shown_is_told_all_the_same():
    failed = run(fail, Unshowable()).error
    assert isinstance(failed, RemoteError)
    assert failed.ename == "Unshowable"


@given(st.lists(st.binary(max_size=50), max_size=4))
def test_other_buffers_are_no_outcome(buffers: list[bytes]):
    try:
        outcome_in(buffers)
    except ProtocolError:
        return
    frames, _ = msgspec.msgpack.decode(buffers[0])
    assert 1 <= frames < len(buffers)

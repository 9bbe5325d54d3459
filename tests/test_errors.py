"""Every error says whose fault it is, what happened and what to do."""

from __future__ import annotations

import inspect
import pickle

import pytest

from hiersched import errors
from hiersched.errors import (
    Bug,
    CompositeError,
    EngineLost,
    HierschedError,
    PeerError,
    RemoteError,
    TaskError,
    UserError,
)

FAULTS = (UserError, TaskError, PeerError, Bug)
ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HierschedError)]
PARTICULAR = [kind for kind in ALL if kind not in (HierschedError, *FAULTS)]

every_particular = pytest.mark.parametrize("kind", PARTICULAR, ids=lambda kind: kind.__name__)


def remote(engine_id: int | None = 3) -> RemoteError:
    return RemoteError("ZeroDivisionError", "division by zero", ["line 1", "1 / 0"], engine_id)


def composite(count: int) -> CompositeError:
    return CompositeError("some engines failed", {rank: remote(rank) for rank in range(count)}, [None] * count)


@every_particular
def test_an_error_is_the_fault_of_exactly_one(kind):
    assert sum(issubclass(kind, fault) for fault in FAULTS) == 1


@every_particular
def test_an_error_explains_itself(kind):
    assert len(inspect.cleandoc(kind.__doc__)) > 40


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [(errors.PackError, TypeError), (errors.UnknownEngine, IndexError), (errors.PlanError, ValueError)],
)
def test_an_error_that_python_has_a_name_for_is_caught_by_it(kind, builtin):
    with pytest.raises(builtin, match="what was wrong"):
        raise kind("what was wrong")


def test_a_remote_error_says_where_and_what():
    assert str(remote()) == "[engine 3] ZeroDivisionError: division by zero"
    assert str(remote(None)) == "ZeroDivisionError: division by zero"


def test_a_remote_error_shows_the_remote_traceback(capsys):
    remote().print_traceback()
    assert capsys.readouterr().out == "line 1\n1 / 0\n"
    assert RemoteError("OSError", "gone", []).render_traceback() == ["OSError: gone"]


def test_a_few_errors_are_shown_in_full_and_of_many_the_first():
    assert str(composite(2)).splitlines() == ["some engines failed", f"  {remote(0)}", f"  {remote(1)}"]
    assert str(composite(1000)).splitlines()[-1] == "  ... and 996 more"
    assert composite(1000).render_traceback()[-2:] == ["line 1", "1 / 0"]


def test_of_errors_without_a_traceback_the_text_is_shown():
    error = CompositeError("some engines failed", {5: EngineLost("engine 5 was killed")})
    assert error.render_traceback()[-1] == "engine 5 was killed"


@every_particular
def test_errors_cross_processes(kind):
    error = {RemoteError: remote(), CompositeError: composite(2)}.get(kind) or kind("what was wrong")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (kind, str(error))


def test_what_an_error_holds_crosses_processes_with_it():
    lost = EngineLost("engine 7 was killed")
    lost.engine_id = 7
    assert pickle.loads(pickle.dumps(lost)).engine_id == 7
    failed = remote()
    failed.pickled = b"the exception itself"
    assert vars(pickle.loads(pickle.dumps(failed))) == vars(failed)
    assert set(pickle.loads(pickle.dumps(composite(2))).errors) == {0, 1}

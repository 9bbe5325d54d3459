"""Every error says whose fault it is, what happened and what to do."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

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
    assert capsys.readouterr().out == "[engine 3]\nline 1\n1 / 0\n"
    assert remote(None).render_traceback() == ["line 1", "1 / 0"]
    assert RemoteError("OSError", "gone", []).render_traceback() == ["OSError: gone"]


def test_a_remote_error_names_its_engine_as_ipyparallel_does():
    assert remote().engine_info == {"engine_id": 3, "engine_uuid": "engine-3", "method": "apply"}


# --- errors of many engines -------------------------------------------------------------------------------------------


def test_equal_errors_are_one_line_with_all_their_engines():
    error = composite(64)
    error.errors[63] = RemoteError("ValueError", "of its own", ["line 9"], 63)
    assert str(error).splitlines() == [
        "some engines failed",
        "[0-62] ZeroDivisionError: division by zero",
        "[63] ValueError: of its own",
    ]


def test_each_different_traceback_is_shown_once():
    error = composite(500)
    error.errors[63] = RemoteError("ValueError", "of its own", ["line 9"], 63)
    assert error.render_traceback() == [
        "some engines failed",
        *("", "[0-62,64-499:apply]:", "line 1", "1 / 0"),
        *("", "[63:apply]:", "line 9"),
    ]


def test_of_many_different_errors_the_first_are_shown_and_the_others_counted():
    own = {rank: RemoteError("ValueError", f"rank {rank}", [f"line {rank}"], rank) for rank in range(500)}
    error = CompositeError("all engines failed", own)
    assert len(str(error).splitlines()) == 2 + CompositeError.tb_limit
    assert str(error).splitlines()[-1] == "... [4-499] 496 more exceptions: ValueError"
    assert len(error.render_traceback()) == 3 + 3 * CompositeError.tb_limit
    assert "more exceptions" in error.render_traceback()[-1]


def test_engines_that_were_lost_alike_are_one_line():
    lost = {}
    for rank in (3, 4, 7):
        lost[rank] = EngineLost(f"engine {rank}: killed by SIGKILL")
        lost[rank].reason = "killed by SIGKILL"
    assert str(CompositeError("f failed", lost)).splitlines()[1:] == ["[3-4,7] EngineLost: killed by SIGKILL"]


def test_failed_items_of_a_map_are_named_as_items():
    error = CompositeError("map failed", {2: remote(0), 9: remote(1)}, unit="item ")
    assert str(error).splitlines()[1] == "[item 2,9] ZeroDivisionError: division by zero"


def test_of_errors_without_a_traceback_the_text_is_shown():
    error = CompositeError("some engines failed", {5: EngineLost("engine 5 was killed")})
    assert error.render_traceback()[-1] == "EngineLost: engine 5 was killed"


def test_one_of_many_errors_can_be_picked(capsys):
    error = CompositeError("some engines failed", {5: EngineLost("engine 5 was killed"), 7: remote(7)})
    with pytest.raises(EngineLost):
        error.raise_exception()
    with pytest.raises(RemoteError):
        error.raise_exception(1)
    error.print_traceback(1)
    assert capsys.readouterr().out == "[7:apply]:\nline 1\n1 / 0\n"
    for pick in (error.raise_exception, error.render_traceback):
        with pytest.raises(IndexError, match="there is no exception 2: there are 2"):
            pick(2)


def test_errors_can_be_had_as_ipyparallels_tuples():
    error = CompositeError("some engines failed", {5: EngineLost("engine 5 was killed"), 7: remote(7)})
    lost, failed = error.elist
    assert lost[:2] == ("EngineError", "engine 5 was killed")
    assert lost[3]["engine_id"] == 5
    assert failed == ("ZeroDivisionError", "division by zero", "line 1\n1 / 0", remote(7).engine_info)


def test_a_long_list_of_numbers_is_cut():
    assert errors.ranges_of([5, 3, 4, 9]) == "3-5,9"
    assert errors.ranges_of([]) == ""
    assert errors.ranges_of(range(0, 200, 2)).endswith("28,30,...")


# --- between processes ------------------------------------------------------------------------------------------------


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
    copy = pickle.loads(pickle.dumps(composite(2)))
    assert set(copy.errors) == {0, 1}
    assert copy.elist == composite(2).elist


# --- errors that code written for ipyparallel catches -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (remote(), "RemoteError"),
        (composite(2), "CompositeError"),
        (composite(2), "RemoteError"),
        (EngineLost("gone"), "EngineError"),
        (EngineLost("gone"), "RemoteError"),
        (errors.TaskCancelled("withdrawn"), "TaskAborted"),
        (errors.TaskInterrupted("withdrawn"), "TaskAborted"),
        (errors.DependencyError("never"), "ImpossibleDependency"),
        (errors.DependencyTimeout("late"), "TaskTimeout"),
        (errors.UnmetDependency("elsewhere"), "UnmetDependency"),
        (errors.UnknownDependency("7-1"), "InvalidDependency"),
        (errors.UnknownTask("7-1"), "RemoteError"),
        (errors.NoEngines("none"), "NoEnginesRegistered"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_is_caught_by_ipyparallels_name_for_it(ours, theirs):
    import ipyparallel.error

    text = str(ours)
    made = type(ours)(*ours.__reduce__()[1])
    assert isinstance(made, getattr(ipyparallel.error, theirs))
    assert isinstance(ours, getattr(ipyparallel.error, theirs)), "those made before are of the same class"
    assert str(made) == text, "and says the same"
    assert str(pickle.loads(pickle.dumps(made))) == text


def test_no_error_loads_ipyparallel():
    code = "import sys, hiersched as hs; hs.EngineLost('gone'); print('ipyparallel' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "False"


def test_an_error_that_no_code_raised_is_told_apart_by_name():
    error = EngineLost("engine 3: killed")
    error.engine_id = 3
    assert (error.ename, error.evalue, error.traceback) == ("EngineError", "engine 3: killed", "")
    assert error.engine_info == {"engine_id": 3, "engine_uuid": "engine-3", "method": "apply"}
    assert error.render_traceback() == ["EngineLost: engine 3: killed"]
    assert errors.DependencyTimeout("late").ename == "TaskTimeout"
    assert errors.UnknownTask("7-1").ename == "KeyError"
    assert errors.DependencyError("never").engine_info == {}


def test_the_traceback_is_text_and_lines():
    assert remote().traceback == "line 1\n1 / 0"
    assert remote().traceback_lines == ["line 1", "1 / 0"]


def test_of_several_calls_that_failed_alike_the_engines_are_named():
    error = CompositeError("f failed", {part: remote(part % 2) for part in range(8)}, unit="part ")
    assert error.render_traceback()[-1] == "... 7 more exceptions, equal to these; engines: 0-1"

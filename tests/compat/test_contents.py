"""How requests end, in ipyparallel's words, which its clients turn into their own exceptions."""

from __future__ import annotations

import ipyparallel.error
import pytest

from hiersched.compat.contents import OK, content_of, error_content, metadata_of, plain_error
from hiersched.data.outcomes import (
    Outcome,
    lost_outcome,
    pack_outcome_buffers,
    pack_outcome_error,
    unpack_outcome,
)
from hiersched.errors import (
    AnswerLost,
    BlobLost,
    DependencyError,
    DependencyTimeout,
    EngineLost,
    HierschedError,
    NoEngines,
    ProtocolError,
    TaskCancelled,
    TaskInterrupted,
    UnknownEngine,
    UnmetDependency,
)

ENGINE = ("uuid", 3)
INFO = {"engine_uuid": "uuid", "engine_id": 3, "method": "apply"}


def raised(error: BaseException) -> Outcome:
    """The outcome of a call that raised this."""
    outcome = unpack_outcome(pack_outcome_error(error, started=1.0, ended=2.0).whole)
    assert outcome.error is not None
    outcome.error.engine_id = 3  # type: ignore[attr-defined]
    return outcome


def test_what_returned_is_ok() -> None:
    outcome = unpack_outcome(pack_outcome_buffers([b"x"], started=1.0, ended=2.0).whole)
    assert content_of(outcome, engine=ENGINE) == OK


def test_what_users_code_raised_is_told_as_it_was() -> None:
    content = content_of(raised(ValueError("bad x")), engine=ENGINE)
    assert (content["status"], content["ename"], content["evalue"]) == ("error", "ValueError", "bad x")
    assert content["traceback"][-1] == "ValueError: bad x"
    assert content["engine_info"] == INFO
    wrapped = ipyparallel.error.unwrap_exception(content)
    assert isinstance(wrapped, ipyparallel.error.RemoteError)
    assert "ValueError: bad x" in str(wrapped)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (EngineLost("x"), "EngineError"),
        (UnknownEngine("x"), "EngineError"),
        (AnswerLost("x"), "EngineError"),
        (BlobLost("x"), "EngineError"),
        (DependencyTimeout("x"), "TaskTimeout"),
        (DependencyError("x"), "ImpossibleDependency"),
        (UnmetDependency("x"), "ImpossibleDependency"),
        (NoEngines("x"), "NoEnginesRegistered"),
        (ProtocolError("x"), "ProtocolError"),
    ],
)
def test_what_never_came_back_has_the_name_that_is_known_there(error: HierschedError, name: str) -> None:
    content = content_of(lost_outcome(error), engine=ENGINE)
    assert (content["ename"], content["evalue"]) == (name, "x")
    assert content["engine_info"] == {}  # it is no error of the engine's, whose output would be waited for
    assert content["traceback"]
    assert name == "ProtocolError" or hasattr(ipyparallel.error, name)


def test_what_was_withdrawn_is_aborted_and_what_was_interrupted_is_not() -> None:
    assert content_of(lost_outcome(TaskCancelled("x")), engine=ENGINE) == {"status": "aborted"}
    content = content_of(lost_outcome(TaskInterrupted("x")), engine=ENGINE)
    assert (content["ename"], content["engine_info"]) == ("KeyboardInterrupt", INFO)
    assert error_content(TaskCancelled("x"))["ename"] == "TaskAborted"


def test_an_error_of_the_door_itself_is_told_as_well() -> None:
    content = error_content(IndexError("no such engine"))
    assert (content["ename"], content["evalue"], content["engine_info"]) == ("IndexError", "no such engine", {})
    assert plain_error("Name", "text")["traceback"] == []


def test_metadata_tell_where_and_when_it_ran() -> None:
    asked = {"label": "mine", "is_broadcast": 1, "original_msg_id": "O"}
    outcome = unpack_outcome(pack_outcome_buffers([b"x"], started=0.0, ended=2.0).whole)
    assert metadata_of(asked, outcome, engine=ENGINE, status="ok") == {
        "dependencies_met": True,
        "engine": "uuid",
        "is_broadcast": True,
        "is_coalescing": False,
        "original_msg_id": "O",
        "label": "mine",
        "status": "ok",
        "started": "1970-01-01T00:00:00+00:00",
    }


def test_metadata_of_what_ran_nowhere() -> None:
    metadata = metadata_of({}, lost_outcome(NoEngines("x")), engine=None, status="error")
    assert (metadata["engine"], metadata["label"], metadata["original_msg_id"]) == (None, None, "")
    assert "started" not in metadata
    assert "engine_info" not in metadata
    assert metadata_of({}, raised(KeyError(1)), engine=ENGINE, status="error")["engine_info"]["engine_id"] == 3

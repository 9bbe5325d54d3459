"""Parts that user code did not answer end with an exception that says so."""

from __future__ import annotations

import pytest

from hiersched.client.losses import NOWHERE, loss_error
from hiersched.errors import CompositeError, EngineLost, NoEngines, ProtocolError, TaskCancelled, UnknownEngine
from hiersched.protocol import messages as m


@pytest.mark.parametrize(("code", "kind"), [(m.ENGINE_LOST, EngineLost), (m.ENGINE_UNKNOWN, UnknownEngine)])
def test_the_loss_of_an_engine_names_it(code, kind):
    error = loss_error(code, 3, "it is gone")
    assert type(error) is kind
    assert (str(error), error.engine_id, error.reason) == ("engine 3: it is gone", 3, "it is gone")
    nobody = loss_error(code, NOWHERE, "all are gone")
    assert (str(nobody), nobody.engine_id) == ("all are gone", None)


def test_equal_losses_of_many_engines_are_one_line():
    errors = {rank: loss_error(m.ENGINE_UNKNOWN, rank, "there is no such engine") for rank in range(40)}
    assert str(CompositeError("failed", errors)) == "failed\n[0-39] UnknownEngine: there is no such engine"


def test_other_ends_say_what_the_scheduler_said():
    error = loss_error(m.CANCELLED, 2, "cancelled before it started")
    assert type(error) is TaskCancelled
    assert str(error) == "cancelled before it started"


def test_an_unknown_code_is_told():
    assert isinstance(loss_error(99, 0, "what?"), ProtocolError)


def test_a_task_that_names_no_engine_finds_none():
    free = loss_error(m.ENGINE_UNKNOWN, NOWHERE, "no engine is left", names_engines=False)
    assert (type(free), str(free)) == (NoEngines, "no engine is left: start some, or wait until they have registered")
    assert type(loss_error(m.ENGINE_UNKNOWN, NOWHERE, "it may run on engine 3 only")) is UnknownEngine

"""Names behind %px are completed by an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.completer import CompletionContext

from hiersched.client.direct_view import DirectView
from hiersched.client.px_completions import complete_from_engine, engine_code


def at_cursor(text: str) -> tuple[str, int, int]:
    """A cell without the bar that marks the cursor, and the cursor's line and column."""
    before, after = text.split("|")
    return before + after, before.count("\n"), len(before.split("\n")[-1])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("%px np.|", "np.|"),
        ("  %px np.ar| + 1", "np.ar| + 1"),
        ("x = 1\n%px y.|", "y.|"),
        ("%%px\nnp.|", "np.|"),
        ("%%px --targets 0\na = 1\nb = a.|\nc", "a = 1\nb = a.|\nc"),
        ("%%px --tar|\na", None),
        ("%p|x np", None),
        ("%px|", None),
        ("np.|", None),
        ("%pxconfig --tar|", None),
        ("%%pxother\na.|", None),
        ("%%timeit\na.|", None),
    ],
)
def test_where_the_cursor_is_in_code_for_engines(text, code):
    expected = None
    if code is not None:
        expected = (code.replace("|", ""), code.index("|"))
    assert engine_code(*at_cursor(text), "px") == expected


def test_magics_with_a_suffix_have_their_own():
    assert engine_code(*at_cursor("%px_even a.|"), "px_even") == ("a.", 2)
    assert engine_code(*at_cursor("%px a.|"), "px_even") is None


class Shell:
    """What is used of IPython's shell."""

    def __init__(self) -> None:
        self.Completer = SimpleNamespace(custom_matchers=[])

    def propose(self, text: str) -> list[dict[str, Any]]:
        """What the matchers say about a cell."""
        cell, line, column = at_cursor(text)
        context = CompletionContext(token="", full_text=cell, cursor_position=column, cursor_line=line, limit=None)
        return [matcher(context) for matcher in self.Completer.custom_matchers]


@pytest.fixture
def shell(view, monkeypatch):
    def stand_in(code: str, cursor: int) -> dict[str, Any]:
        return {"matches": ["np.array", "np.arange"], "cursor_start": cursor - 5, "cursor_end": cursor}

    monkeypatch.setattr("hiersched.client.px_completions.complete", stand_in)
    shell = Shell()
    complete_from_engine(shell, view, "")
    return shell


def test_the_first_engine_is_asked(session, shell):
    (answer,) = shell.propose("%px x = np.ar|")
    assert [proposal.text for proposal in answer["completions"]] == ["np.array", "np.arange"]
    assert (answer["matched_fragment"], answer["suppress"]) == ("np.ar", True)
    assert len(session.sent) == 1


def test_other_lines_are_not_the_engines(session, shell):
    assert shell.propose("np.ar|") == [{"completions": []}]
    assert session.sent == []


def test_a_busy_engine_proposes_nothing(session, shell):
    session.hold(0)
    assert shell.propose("%px np.ar|") == [{"completions": []}]
    assert session.jobs == []


def test_a_cluster_without_engines_proposes_nothing(session, shell):
    session.engines.clear()
    assert shell.propose("%px np.ar|") == [{"completions": []}]


def test_activating_again_asks_the_new_view_only(session, client, shell):
    complete_from_engine(shell, DirectView(client, [2, 3]), "")
    complete_from_engine(shell, DirectView(client, 1), "_one")
    assert len(shell.Completer.custom_matchers) == 2
    session.hold(2)
    assert shell.propose("%px np.ar|") == [{"completions": []}] * 2
    assert len(shell.propose("%px_one np.ar|")[1]["completions"]) == 2


def test_completing_leaves_no_trace_in_the_history(view, shell):
    shell.propose("%px np.ar|")
    assert view.history == []

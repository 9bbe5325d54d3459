"""Completion of %px lines and %%px cells with the names that an engine has.

The first engine of the view is asked. One that is busy does not answer in time, and then nothing is proposed.
"""

from __future__ import annotations

from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from hiersched.client.direct_view import DirectView
from hiersched.client.targets import resolve_targets
from hiersched.data.completion import complete
from hiersched.errors import HierschedError
from hiersched.limits import COMPLETION_TIMEOUT_S


def complete_from_engine(shell: Any, view: DirectView, suffix: str) -> None:
    """Have IPython ask an engine of `view` behind %px and %%px with this suffix, and nobody else it asked before."""
    identifier = f"hiersched_px{suffix}"

    @context_matcher(identifier=identifier)
    def matcher(context: CompletionContext) -> dict[str, Any]:
        code = engine_code(context.full_text, context.cursor_line, context.cursor_position, f"px{suffix}")
        return _proposals(view, *code) if code is not None else {"completions": []}

    others = [known for known in shell.Completer.custom_matchers if _identifier_of(known) != identifier]
    shell.Completer.custom_matchers = [*others, matcher]


def _identifier_of(matcher: Any) -> str | None:
    return getattr(matcher, "matcher_identifier", None)


def engine_code(text: str, line: int, column: int, magic: str) -> tuple[str, int] | None:
    """The code of a cell that runs on engines, and where the cursor is in it. None if the cursor is not in any.

    line, column: of the cursor in `text`, counted from 0. magic: the name of the magic.
    """
    lines = text.split("\n")
    head = lines[0].split(maxsplit=1)
    if head and head[0] == f"%%{magic}":
        if not line:
            return None  # among the magic's flags
        return "\n".join(lines[1:]), sum(len(before) + 1 for before in lines[1:line]) + column
    name, space, code = lines[line].lstrip().partition(" ")
    cursor = column - (len(lines[line]) - len(code))
    return (code, cursor) if name == f"%{magic}" and space and cursor >= 0 else None


def _proposals(view: DirectView, code: str, cursor: int) -> dict[str, Any]:
    """What an engine proposes, as IPython has it."""
    try:
        reply = _reply(view, code, cursor)
    except HierschedError:  # nobody is there to ask, as whoever runs the cell will be told
        reply = None
    if reply is None:
        return {"completions": []}
    return {
        "completions": [SimpleCompletion(text=match) for match in reply["matches"]],
        "matched_fragment": code[reply["cursor_start"] : reply["cursor_end"]],
        "suppress": True,
    }


def _reply(view: DirectView, code: str, cursor: int) -> dict[str, Any] | None:
    """The answer of the view's first engine; None if it does not come in time."""
    engine = view.targets if isinstance(view.targets, int) else resolve_targets(view.targets, view.client.ids)[0]
    result = DirectView(view.client, engine).apply_async(complete, code, cursor)
    if result.wait(COMPLETION_TIMEOUT_S):
        return result.get()
    result.cancel()
    return None

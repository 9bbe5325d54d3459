"""What an engine proposes to complete a line with. An ordinary function, which clients call on engines."""

from __future__ import annotations

from typing import Any


def complete(code: str, cursor: int | None = None) -> dict[str, Any]:
    """Completions at `cursor`, counted in characters; by default at the end. The names are those of the engine.

    As Jupyter's complete_reply: matches, cursor_start, cursor_end, metadata, status. Without IPython there are none.
    """
    from IPython.core.completer import provisionalcompleter, rectify_completions
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if cursor is None:
        cursor = len(code)
    found = []
    if shell is not None:
        shell.Completer.use_jedi = False  # it reads text, for a second at first; here the objects are at hand
        with provisionalcompleter():  # which the completer wants to hear: its interface may still change
            found = list(rectify_completions(code, shell.Completer.completions(code, cursor)))
    return {
        "matches": [completion.text for completion in found],
        "cursor_start": found[0].start if found else cursor,
        "cursor_end": found[0].end if found else cursor,
        "metadata": {},
        "status": "ok",
    }

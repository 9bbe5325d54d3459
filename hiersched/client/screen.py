"""Where the outputs of engines are shown: this process's own streams, and in IPython its frontend.

Texts stand under the engines that they are of, and equal ones of several engines are shown once: `[stdout:0-62,64]`.
What is displayed is published again in IPython; elsewhere its plain text is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from hiersched.client.shell import current_shell
from hiersched.data.cells import CellReply
from hiersched.data.outputs import Shown
from hiersched.errors import ranges_of


class Screen:
    """single: of one engine only, and nothing is labelled."""

    def __init__(self, *, single: bool) -> None:
        self._single = single
        self._label = ""  # that of the text printed last
        self._mid_line = False  # its end is not that of a line

    def print_text(self, stream: str, engines: Sequence[int], text: str, *, whole: bool = False) -> None:
        """Text that these engines printed. stream: 'stdout' or 'stderr'; whole: there is no more of it."""
        if not text:
            return
        file = sys.stderr if stream == "stderr" else sys.stdout
        self._head(f"[{stream}:{ranges_of(engines)}]", file)
        if whole and not text.endswith("\n"):
            text += "\n"
        print(text, end="", file=file, flush=True)
        self._mid_line = not text.endswith("\n")

    def display(self, engines: Sequence[int], outputs: Iterable[dict[str, Any]]) -> None:
        """What these engines displayed, as Jupyter's dicts."""
        listed = list(outputs)
        if listed:
            self._head(f"[output:{ranges_of(engines)}]", sys.stdout)
        for output in listed:
            self._publish(output["data"], {**(output.get("metadata") or {}), "engine": _engine(engines)}, {}, False)
        self._label = ""

    def show(self, engines: Sequence[int], shown: Shown) -> None:
        """Something displayed while the code runs. What has a display_id can be updated, for each engine apart."""
        name = shown.transient.get("display_id")
        apart = [[engine] for engine in engines] if name is not None else [list(engines)]
        for group in apart:
            transient = {} if name is None else {"display_id": f"{name}-engine-{group[0]}"}
            if not shown.update:
                self._head(f"[output:{ranges_of(group)}]", sys.stdout)
            self._publish(shown.data, {**shown.metadata, "engine": _engine(group)}, transient, shown.update)
        self._label = ""

    def clear(self, *, wait: bool) -> None:
        """What was shown so far is to go, where a frontend can do that."""
        shell = current_shell()
        if shell is not None:
            shell.display_pub.clear_output(wait=wait)
        self._label, self._mid_line = "", False

    def show_result(self, engines: Sequence[int], reply: CellReply) -> None:
        """What a cell's last expression gave."""
        if reply.execute_result is not None:
            self._end_line(sys.stdout)
            labelled = {**reply.metadata, "engine_id": ranges_of(engines)}
            CellReply(reply.execution_count, reply.execute_result, labelled).display()
            self._label = ""

    def print_error(self, engines: Sequence[int], lines: Iterable[str]) -> None:
        """How the code failed on these engines."""
        self._head(f"[error:{ranges_of(engines)}]", sys.stderr)
        print("\n".join(lines), file=sys.stderr, flush=True)
        self._label = ""

    def _head(self, label: str, file: Any) -> None:
        """Say whose output follows, unless it is the same as before."""
        if self._single or label == self._label:
            return
        self._end_line(file)
        print(label, file=file)
        self._label = label

    def _end_line(self, file: Any) -> None:
        if self._mid_line:
            print(file=file)
            self._mid_line = False

    def _publish(self, data: dict[str, Any], metadata: dict[str, Any], transient: dict[str, Any], update: bool) -> None:
        shell = current_shell()
        if shell is not None:
            shell.display_pub.publish(data=data, metadata=metadata, transient=transient, update=update)
        elif not update:
            print(data.get("text/plain", f"<{', '.join(data)}>"))


def _engine(engines: Sequence[int]) -> int | list[int]:
    return engines[0] if len(engines) == 1 else list(engines)

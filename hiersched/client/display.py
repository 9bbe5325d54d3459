"""Showing what calls printed and displayed, labelled by engine.

In IPython, displayed objects are published again with their engine id in the metadata; elsewhere their plain text is
printed. What one engine printed stays together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, TextIO

from hiersched.client.metadata import Metadata


def show_outputs(parts: Sequence[Metadata], *, single: bool, groupby: str = "type") -> None:
    """Show stdout, stderr and displayed objects of `parts`.

    groupby: 'type' all stdout first, then all stderr, then what was displayed; 'engine' one engine after the other;
    'order' as 'type', but the first displayed object of every engine, then the second, and so on. single: no labels.
    """
    if groupby not in ("type", "engine", "order"):
        raise ValueError(f"groupby must be 'type', 'engine' or 'order', not {groupby!r}")
    if groupby == "engine":
        for part in parts:
            _show_streams([part], single=single)
            _show_displayed(part, part["outputs"], single=single)
        return
    _show_streams(parts, single=single)
    if groupby == "type":
        for part in parts:
            _show_displayed(part, part["outputs"], single=single)
        return
    for row in zip_longest(*(part["outputs"] for part in parts)):
        for part, output in zip(parts, row, strict=True):
            if output is not None:
                _show_displayed(part, [output], single=single)


def _show_streams(parts: Sequence[Metadata], *, single: bool) -> None:
    """Print stdout of all parts, then stderr of all parts."""
    streams: list[tuple[str, TextIO]] = [("stdout", sys.stdout), ("stderr", sys.stderr)]
    for name, stream in streams:
        for part in parts:
            text = part[name]
            if not text:
                continue
            if not single:
                print(f"[{name}:{part['engine_id']}]", file=stream)
            print(text, end="" if text.endswith("\n") else "\n", file=stream)


def _show_displayed(part: Metadata, outputs: Sequence[dict[str, Any]], *, single: bool) -> None:
    """Publish or print what one part displayed."""
    if not outputs:
        return
    engine = part["engine_id"]
    if not single:
        print(f"[output:{engine}]")
    publisher = _display_publisher()
    for output in outputs:
        if publisher is None:
            print(output["data"].get("text/plain", f"<{', '.join(output['data'])}>"))
        else:
            publisher.publish(data=output["data"], metadata={**(output.get("metadata") or {}), "engine": engine})


def _display_publisher() -> Any:
    """IPython's display publisher, or None outside of IPython."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return None if shell is None else shell.display_pub

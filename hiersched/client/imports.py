"""Imports that happen here and on the engines at once.

Within the `with` block the interpreter's import function is a wrapper that passes everything on, and takes note of the
statements that stand in the block itself. Under which names these bind what they import, only the code that follows
them tells, so it is read from there: `import numpy as np` binds `np` on the engines too.
"""

from __future__ import annotations

import builtins
import dis
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from hiersched.data.imports import Binding, bring

if TYPE_CHECKING:
    from hiersched.client.direct_view import DirectView
    from hiersched.client.results import AsyncResult


def sync_imports(view: DirectView, *, local: bool = True, quiet: bool = False) -> SyncImports:
    """The context. quiet: print nothing. Raises NotImplementedError for imports that are not to happen here."""
    if not local:
        raise NotImplementedError(
            "sync_imports() imports here as well; for engines only, use view.execute('import ...', block=True)"
        )
    return SyncImports(view, quiet=quiet)


class SyncImports:
    """Watches the imports of one `with` block. Leaving it raises what the engines raised."""

    def __init__(self, view: DirectView, *, quiet: bool) -> None:
        self._view = view
        self._quiet = quiet
        self._block: FrameType | None = None
        self._import: Any = None
        self._results: dict[tuple[Binding, ...], AsyncResult] = {}

    def __enter__(self) -> None:
        self._block = sys._getframe(1)
        self._import = builtins.__import__
        builtins.__import__ = self._watched

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        builtins.__import__ = self._import
        self._block = None
        results, self._results = list(self._results.values()), {}
        if error is None:
            for result in results:
                result.get()

    def _watched(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (), level: int = 0
    ) -> ModuleType:
        module: ModuleType = self._import(name, globals, locals, fromlist, level)
        frame = sys._getframe(1)
        if frame is self._block:
            source = module.__name__ if level else name  # a relative name means nothing on an engine
            self._bring(source, bindings_of(source, fromlist or (), names_bound(frame)))
        return module

    def _bring(self, module: str, bindings: list[Binding]) -> None:
        """Import on the engines what was imported here, once."""
        key = tuple(bindings)
        if key in self._results:
            return
        if not self._quiet:
            attributes = ",".join(attribute for _, _, attribute in bindings if attribute)
            print(f"importing {f'{attributes} from ' if attributes else ''}{module} on engine(s)")
        self._results[key] = self._view.apply_async(bring, module, bindings)


def bindings_of(module: str, fromlist: Sequence[str], bound: tuple[list[str], bool]) -> list[Binding]:
    """What an import statement binds. bound: see names_bound."""
    names, by_last = bound
    if "*" in fromlist:
        return [("*", module, "*")]
    if fromlist:
        names = names if len(names) >= len(fromlist) else list(fromlist)
        return [(name, module, attribute) for name, attribute in zip(names, fromlist, strict=False)]
    top = module.partition(".")[0]
    return [(names[0] if names else top, module if by_last else top, "")]


def names_bound(frame: FrameType) -> tuple[list[str], bool]:
    """The names that the import statement at which `frame` is binds, in order, as far as its code tells.

    With them whether a dotted name stands for its last part, as in `import a.b as c`, and not for its first.
    """
    names: list[str] = []
    by_last = False
    following = (step for step in dis.get_instructions(frame.f_code) if step.offset > frame.f_lasti)
    for step in following:
        if step.opname == "IMPORT_FROM":
            by_last = by_last or not names
        elif step.opname.startswith("STORE_"):
            names.append(step.argval[0] if isinstance(step.argval, tuple) else step.argval)
        elif step.opname not in _WITHIN_AN_IMPORT:
            break
    return names, by_last


_WITHIN_AN_IMPORT = frozenset({"SWAP", "POP_TOP", "CACHE", "EXTENDED_ARG", "NOP"})

"""%px from the first client on, without asking for it.

The magics take as long to import as everything else of a client together, so what a new client registers with IPython
are stand-ins, which put the real ones in their places when one of them is first used. A view that is activated by hand
replaces them.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from hiersched.client.shell import current_shell

if TYPE_CHECKING:
    from hiersched.client.client import Client

_LINE_MAGICS = ("px", "autopx", "pxconfig", "pxresult")
_CELL_MAGICS = ("px",)


def offer_magics(client: Client) -> None:
    """Have %px and its kin run on all engines of this client, unless some view has them already."""
    shell = current_shell()
    if shell is None or "px" in shell.magics_manager.magics["line"]:
        return
    known = weakref.ref(client)
    for name in _LINE_MAGICS:
        shell.register_magic_function(_stand_in(shell, known, name), "line", name)
    for name in _CELL_MAGICS:
        shell.register_magic_function(_cell_stand_in(shell, known, name), "cell", name)


def _stand_in(shell: Any, known: weakref.ref[Client], name: str) -> Any:
    from IPython.core.magic import no_var_expand

    @no_var_expand
    def line_magic(line: str = "") -> Any:
        """Runs on the engines of the client that was made first; %px? tells more once it was used."""
        _activate(shell, known, name)
        return shell.run_line_magic(name, line)

    return line_magic


def _cell_stand_in(shell: Any, known: weakref.ref[Client], name: str) -> Any:
    from IPython.core.magic import no_var_expand

    @no_var_expand
    def cell_magic(line: str, cell: str) -> Any:
        """Runs on the engines of the client that was made first; %px? tells more once it was used."""
        _activate(shell, known, name)
        return shell.run_cell_magic(name, line, cell)

    return cell_magic


def _activate(shell: Any, known: weakref.ref[Client], name: str) -> None:
    """Put the real magics in the places of the stand-ins. Raises UsageError if the client is gone."""
    from IPython.core.error import UsageError

    client = known()
    if client is None or client.session.closed:
        for kind, names in (("line", _LINE_MAGICS), ("cell", _CELL_MAGICS)):
            for each in names:
                shell.magics_manager.magics[kind].pop(each, None)
        raise UsageError(f"%{name}: its client is gone; activate() another client or view")
    client.activate()

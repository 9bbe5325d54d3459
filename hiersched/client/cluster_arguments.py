"""Names that ipyparallel's users give to the arguments of clusters and clients, and what an unknown one gets."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from hiersched.errors import UserError

LAUNCHERS = ("local", "hiersched")  # two names for processes of this host, forked by a nursery
ALIASES = {"controller_ip": "ip", "controller_launcher_class": "controller", "engine_launcher_class": "engines"}


def check_launcher(name: str) -> None:
    """Raise UserError if there is no launcher of this name."""
    if str(name).lower() not in LAUNCHERS:
        raise UserError(f"no launcher {name!r}: there is 'local', which starts processes on this host")


def check_count(n: Any) -> None:
    """Raise UserError for what is no number of engines."""
    if not hasattr(n, "__index__"):
        raise UserError(f"a number of engines is a whole number, not {n!r}")


def unaliased(
    function: Callable[..., object], others: Mapping[str, Any], *, aliases: Mapping[str, str] = ALIASES
) -> dict[str, Any]:
    """Keywords that `function` does not name, under the names that it has for them. Raises TypeError for the rest."""
    own = [name for name, p in signature(function).parameters.items() if p.kind is not Parameter.VAR_KEYWORD]
    known = [*own, *aliases]
    for name in others:
        if name not in aliases:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TypeError(f"there is no argument {name!r}: {hint}there are {', '.join(known)}")
    return {aliases[name]: value for name, value in others.items()}

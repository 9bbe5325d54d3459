"""Signals by number or name."""

from __future__ import annotations

import signal

from hiersched.errors import UserError


def signal_number(sig: int | str) -> int:
    """The number of a signal. Raises UserError naming the valid ones."""
    if isinstance(sig, str):
        found = getattr(signal, sig, None)
        number = found if isinstance(found, signal.Signals) else int(sig) if sig.isdigit() else -1
    else:
        number = int(sig)
    if number not in signal.valid_signals():
        names = ", ".join(signal.Signals.__members__)
        raise UserError(f"{sig!r} is no signal: give its number, or one of {names}")
    return int(number)

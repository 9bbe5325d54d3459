"""The command line: hiersched start | stop | status | list | engines | scale | signal | clean | plan | sim."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hiersched.cli.parser import parsed
from hiersched.errors import HierschedError

INTERRUPTED = 130  # as shells have it for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 if it did what was asked; 1, with the reason on standard error, if it could not."""
    options = parsed(arguments)
    try:
        options.command(options)
    except (HierschedError, TimeoutError, OSError) as error:
        print(f"hiersched {options.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"hiersched {options.name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0

"""What an engine is given when it has come: its set's surroundings and settings, and the user's startup code.

An engine is forked by the controller, and so begins with the controller's variables and directory. This is called on
it, before anybody else calls anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from IPython.core.getipython import get_ipython
from traitlets.config import Config


def begin(
    environ: Mapping[str, str],
    directory: str,
    path: Sequence[str],
    *,
    settings: Config,
    files: Sequence[str],
    lines: Sequence[str],
) -> None:
    """Take over variables, a working directory, entries for sys.path and IPython's settings; then run files and lines
    of the user's.

    What these raise is shown, and ends nothing, as in IPython. Raises OSError if there is no such directory here.
    """
    os.environ.update(environ)
    os.chdir(directory)
    sys.path.extend(entry for entry in path if entry not in sys.path)
    shell = get_ipython()
    assert shell is not None, "every engine has one"
    for configurable in (shell, *shell.configurables):
        configurable.update_config(settings)
    for file in files:
        shell.safe_execfile(file, shell.user_ns, shell_futures=True)
    for line in lines:
        shell.run_cell(line, store_history=False)

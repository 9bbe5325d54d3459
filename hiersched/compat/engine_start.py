"""What an engine is given when it has come: the surroundings that its set was started in, and the user's startup code.

An engine is forked by the controller, and so begins with the controller's variables and directory. This is called on
it, before anybody else calls anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from IPython.core.getipython import get_ipython


def begin(
    environ: Mapping[str, str], directory: str, path: Sequence[str], *, files: Sequence[str], lines: Sequence[str]
) -> None:
    """Take over variables, a working directory and entries for sys.path; then run files and lines of the user's.

    What these raise is shown, and ends nothing, as in IPython. Raises OSError if there is no such directory here.
    """
    os.environ.update(environ)
    os.chdir(directory)
    sys.path.extend(entry for entry in path if entry not in sys.path)
    shell = get_ipython()
    assert shell is not None, "every engine has one"
    for file in files:
        shell.safe_execfile(file, shell.user_ns, shell_futures=True)
    for line in lines:
        shell.run_cell(line, store_history=False)

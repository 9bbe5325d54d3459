"""Leaves a trace of a start, and becomes the module of ours that is started: `traced.py controller --profile=...`.

The line is for whoever counts that it was ours that ran. The process stays the same, as launchers know it by its id.
"""

import os
import sys

LOG_VARIABLE = "HIERSCHED_STARTS_LOG"

if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    log = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, f"{kind} {os.getpid()}\n".encode())
    os.close(log)
    os.execv(sys.executable, [sys.executable, "-m", f"hiersched.compat.{kind}", *arguments])

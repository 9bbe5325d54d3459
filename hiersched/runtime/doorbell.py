"""The doorbell of an engine: the signal that says, read your mail now.

A real-time signal, because those are left alone by what users run. It is blocked in every process that the nursery
forks, from before its birth: rung early, it waits. An engine unblocks it (`signal.pthread_sigmask`) once its handler is
there; schedulers never do.
"""

from __future__ import annotations

import signal

DOORBELL_SIGNAL = signal.SIGRTMIN + 7

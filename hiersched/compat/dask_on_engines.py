"""An old client's `become_dask`, on engines of ours.

Such a client asks the hub for a dask scheduler, then calls functions of ipyparallel's on the engines, which start the
workers on the event loop of a stock engine. Ours have none that they could share, so other functions stand in for
those: they run the worker on a loop of its own, as for our own clients.
"""

from __future__ import annotations

from typing import Any

from hiersched.client.dask import become_worker, stop_worker
from hiersched.data.applied import stand_ins


def stand_in() -> None:
    """From now on this engine starts and ends workers for old clients."""
    stand_ins["ipyparallel.util", "become_dask_worker"] = become_dask_worker
    stand_ins["ipyparallel.util", "stop_distributed_worker"] = stop_worker


def become_dask_worker(address: str, nanny: bool = False, **options: Any) -> None:
    """Start a dask worker in this engine, unless it has one. Raises what dask raises."""
    become_worker(address, nanny, options)

"""hiersched: many Python engines, driven through a spanning tree of schedulers.

    import hiersched as hs

    with hs.Cluster(n=4) as rc:
        rc[:].apply_sync(os.getpid)

What takes time to import is imported when it is first used, so that engines and schedulers start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hiersched.errors import (
    BlobLost,
    CapacityError,
    ClusterLost,
    CompositeError,
    ConnectionFileError,
    EngineLost,
    HierschedError,
    NoEngines,
    NotAuthorised,
    PackError,
    PlanError,
    RemoteError,
    StartError,
    TaskCancelled,
    UnknownEngine,
    VersionMismatch,
)

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.client import Client
    from hiersched.client.cluster import Cluster
    from hiersched.client.direct_view import DirectView
    from hiersched.client.joblib_backend import register_joblib
    from hiersched.client.results import AsyncResult
    from hiersched.core.topology import Host, TreePlan, plan_tree
    from hiersched.data.serialize import Reference

__version__ = "0.1.0"

_HOMES = {
    "AsyncResult": "hiersched.client.results",
    "Client": "hiersched.client.client",
    "Cluster": "hiersched.client.cluster",
    "DirectView": "hiersched.client.direct_view",
    "Host": "hiersched.core.topology",
    "LoadBalancedView": "hiersched.client.balanced_view",
    "Reference": "hiersched.data.serialize",
    "TreePlan": "hiersched.core.topology",
    "plan_tree": "hiersched.core.topology",
    "register_joblib": "hiersched.client.joblib_backend",
}

__all__ = [
    "AsyncResult",
    "BlobLost",
    "CapacityError",
    "Client",
    "Cluster",
    "ClusterLost",
    "CompositeError",
    "ConnectionFileError",
    "DirectView",
    "EngineLost",
    "HierschedError",
    "Host",
    "LoadBalancedView",
    "NoEngines",
    "NotAuthorised",
    "PackError",
    "PlanError",
    "Reference",
    "RemoteError",
    "StartError",
    "TaskCancelled",
    "TreePlan",
    "UnknownEngine",
    "VersionMismatch",
    "__version__",
    "plan_tree",
    "register_joblib",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hiersched' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""hiersched: many Python engines, driven through a spanning tree of schedulers.

    import hiersched as hs

    with hs.Cluster(n=4) as rc:
        rc[:].apply_sync(os.getpid)

What takes time to import is imported when it is first used, so that engines and schedulers start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hiersched import errors as error
from hiersched.errors import (
    AnswerLost,
    BlobLost,
    CapacityError,
    ClusterLost,
    CompositeError,
    ConnectionFileError,
    DependencyError,
    DependencyTimeout,
    EngineLost,
    HierschedError,
    NoEngines,
    NotAuthorised,
    NotOffered,
    PackError,
    PeerError,
    PlanError,
    QuorumNotReached,
    RemoteError,
    ResultDropped,
    SessionTaken,
    StartError,
    TaskCancelled,
    TaskError,
    TaskInterrupted,
    UnknownEngine,
    UnknownSession,
    UnknownTask,
    UnmetDependency,
    UserError,
    VersionMismatch,
)

if TYPE_CHECKING:
    from builtins import TimeoutError
    from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.broadcast_view import BroadcastView
    from hiersched.client.client import Client
    from hiersched.client.cluster import Cluster
    from hiersched.client.dependencies import Dependency
    from hiersched.client.direct_view import DirectView
    from hiersched.client.executor import ViewExecutor
    from hiersched.client.joblib_backend import register_joblib, register_joblib_backend
    from hiersched.client.map_results import AsyncMapResult
    from hiersched.client.remote_functions import ParallelFunction, RemoteFunction
    from hiersched.client.results import AsyncHubResult, AsyncResult
    from hiersched.client.views import parallel, remote
    from hiersched.core.topology import Host, TreePlan, plan_tree
    from hiersched.data.conditions import depend, dependent, interactive, require
    from hiersched.data.serialize import Reference

__version__ = "0.1.0"

_HOMES = {
    "ALL_COMPLETED": "concurrent.futures",
    "AsyncHubResult": "hiersched.client.results",
    "AsyncMapResult": "hiersched.client.map_results",
    "AsyncResult": "hiersched.client.results",
    "BroadcastView": "hiersched.client.broadcast_view",
    "Client": "hiersched.client.client",
    "Cluster": "hiersched.client.cluster",
    "Dependency": "hiersched.client.dependencies",
    "DirectView": "hiersched.client.direct_view",
    "FIRST_COMPLETED": "concurrent.futures",
    "FIRST_EXCEPTION": "concurrent.futures",
    "Host": "hiersched.core.topology",
    "LoadBalancedView": "hiersched.client.balanced_view",
    "ParallelFunction": "hiersched.client.remote_functions",
    "Reference": "hiersched.data.serialize",
    "RemoteFunction": "hiersched.client.remote_functions",
    "TimeoutError": "builtins",
    "TreePlan": "hiersched.core.topology",
    "ViewExecutor": "hiersched.client.executor",
    "depend": "hiersched.data.conditions",
    "dependent": "hiersched.data.conditions",
    "interactive": "hiersched.data.conditions",
    "parallel": "hiersched.client.views",
    "plan_tree": "hiersched.core.topology",
    "register_joblib": "hiersched.client.joblib_backend",
    "register_joblib_backend": "hiersched.client.joblib_backend",
    "remote": "hiersched.client.views",
    "require": "hiersched.data.conditions",
}

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AnswerLost",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "BlobLost",
    "BroadcastView",
    "CapacityError",
    "Client",
    "Cluster",
    "ClusterLost",
    "CompositeError",
    "ConnectionFileError",
    "Dependency",
    "DependencyError",
    "DependencyTimeout",
    "DirectView",
    "EngineLost",
    "HierschedError",
    "Host",
    "LoadBalancedView",
    "NoEngines",
    "NotAuthorised",
    "NotOffered",
    "PackError",
    "ParallelFunction",
    "PeerError",
    "PlanError",
    "QuorumNotReached",
    "Reference",
    "RemoteError",
    "RemoteFunction",
    "ResultDropped",
    "SessionTaken",
    "StartError",
    "TaskCancelled",
    "TaskError",
    "TaskInterrupted",
    "TimeoutError",
    "TreePlan",
    "UnknownEngine",
    "UnknownSession",
    "UnknownTask",
    "UnmetDependency",
    "UserError",
    "VersionMismatch",
    "ViewExecutor",
    "__version__",
    "depend",
    "dependent",
    "error",
    "interactive",
    "parallel",
    "plan_tree",
    "register_joblib",
    "register_joblib_backend",
    "remote",
    "require",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from hiersched.client.absent import MODULE_NAMES

        instead = f": {MODULE_NAMES[name]}" if name in MODULE_NAMES else ""
        raise AttributeError(f"module 'hiersched' has no attribute {name!r}{instead}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

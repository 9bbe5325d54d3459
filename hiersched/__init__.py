"""hiersched: many Python engines, driven through a spanning tree of schedulers.

    import hiersched as hs

    with hs.Cluster(n=4) as rc:
        rc[:].apply_sync(os.getpid)

Public names are imported when first used, so that engines and schedulers, which need none of them, start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.client import Client
    from hiersched.client.cluster import Cluster
    from hiersched.client.direct_view import DirectView
    from hiersched.client.joblib_backend import register_joblib
    from hiersched.client.results import AsyncResult
    from hiersched.core.topology import Host, TreePlan, plan_tree
    from hiersched.data.serialize import Reference
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

_HOMES = {
    "client.balanced_view": ("LoadBalancedView",),
    "client.client": ("Client",),
    "client.cluster": ("Cluster",),
    "client.direct_view": ("DirectView",),
    "client.joblib_backend": ("register_joblib",),
    "client.results": ("AsyncResult",),
    "core.topology": ("Host", "TreePlan", "plan_tree"),
    "data.serialize": ("Reference",),
    "errors": (
        "BlobLost",
        "CapacityError",
        "ClusterLost",
        "CompositeError",
        "ConnectionFileError",
        "EngineLost",
        "HierschedError",
        "NoEngines",
        "NotAuthorised",
        "PackError",
        "PlanError",
        "RemoteError",
        "StartError",
        "TaskCancelled",
        "UnknownEngine",
        "VersionMismatch",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'hiersched' has no attribute {name!r}")
    value = getattr(import_module(f"hiersched.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

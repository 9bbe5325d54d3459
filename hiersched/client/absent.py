"""Names of ipyparallel's that have no meaning here: who uses one is told what there is instead.

They are names of its sockets and messages, of its hub and of its configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hiersched.errors import NotOffered, UserError

_TUNNEL = "there are no tunnels: start the cluster with ip=..., whose connection file lets clients of other hosts in"
_HOME = "profiles lie in $HIERSCHED_DIR or ~/.hiersched: give profile_dir for another directory"
_NO_TRAITS = "there are no configuration objects: give arguments"
_ROOT = "the root takes no arguments of its own: give those of Cluster"
_LOCAL = "all processes are started on this host, by no other launcher"
_KEYS = "keys are in the connection file, and of nobody else's concern"

CLIENT_ARGUMENTS = {
    "config": _NO_TRAITS,
    "ipython_dir": _HOME,
    "paramiko": _TUNNEL,
    "parent": _NO_TRAITS,
    "password": _TUNNEL,
    "sshkey": _TUNNEL,
    "sshserver": _TUNNEL,
}
CLIENT_NAMES = {
    "create_message_futures": "calls are made by views, which give AsyncResults",
    "curve_publickey": _KEYS,
    "curve_secretkey": _KEYS,
    "curve_serverkey": _KEYS,
    "send_apply_request": "calls are made by views: rc[0].apply_async(f)",
    "send_execute_request": "cells are run by views: rc[0].execute(code)",
}
CLUSTER_ARGUMENTS = {
    "config": _NO_TRAITS,
    "controller_args": _ROOT,
    "controller_location": "the connection file holds the address that `ip` names",
    "load_profile": _NO_TRAITS,
    "parent": _NO_TRAITS,
    "profile_config": _NO_TRAITS,
}
CLUSTER_NAMES = {
    **CLUSTER_ARGUMENTS,
    "controller_ip": "it is called ip",
    "controller_launcher_class": _LOCAL,
    "engine_launcher_class": _LOCAL,
    "log_level": "it is log.level",
}
MODULE_NAMES = {
    "ClusterManager": "Cluster.list() tells which clusters run, and Cluster.from_file() takes hold of one",
    "bind_kernel": "engines are no Jupyter kernels: views and the %px magics run code on them",
    "PrePickled": "pass the object itself: what is large travels once",
    "collect_exceptions": "get(return_exceptions=True) gives errors in the places of results",
}


def present(absent: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments among these that have a meaning here. Raises UserError for others, unless they are None."""
    for name, value in given.items():
        if name in absent and value is not None:
            raise UserError(f"{name}: {absent[name]}")
    return {name: value for name, value in given.items() if name not in absent}


class SaysWhatIsAbsent:
    """Raises NotOffered, an AttributeError that says what there is instead, for names of ipyparallel's."""

    _absent: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in self._absent:
                raise NotOffered(f"{type(self).__name__}.{name}: {self._absent[name]}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

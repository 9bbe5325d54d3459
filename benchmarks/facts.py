"""What the figures were measured on: the machine, the Python, the versions of everybody who takes part."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.report import MISSING

PACKAGES = (
    "hiersched",
    "ipyparallel",
    "pyzmq",
    "tornado",
    "loky",
    "joblib",
    "dask",
    "distributed",
    "ray",
    "mpi4py",
    "numpy",
)
BYTES_PER_GB = 1e9


def facts() -> dict[str, str]:
    """Name -> value, for people to read."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / BYTES_PER_GB:.0f} GB",
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{package: _version(package) for package in PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING

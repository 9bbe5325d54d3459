"""What this machine has: cores, memory, NUMA nodes, GPUs, and the bounds its cgroups set.

A process often may use less than the machine has: its affinity mask, and the quotas of its cgroup and of every group
above it, are what counts. Both versions of cgroups are read, as a machine may mount either or both. All files are
looked up below a root directory, which is only in tests another than `/`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pynvml

ROOT = Path("/")
_UNLIMITED_BYTES = 1 << 60  # version 1 says "no limit" by a number near 2**63


class NumaNode(msgspec.Struct, frozen=True):
    """A NUMA node. cpus: its CPU numbers."""

    number: int
    cpus: tuple[int, ...]
    memory_bytes: int


class Gpu(msgspec.Struct, frozen=True):
    """A GPU that the driver shows to this process."""

    number: int
    name: str
    uuid: str
    memory_bytes: int


class Bounds(msgspec.Struct, frozen=True):
    """What the cgroups of this process leave it; None: no bound.

    cpus: CPU seconds per second. memory_bytes: in all. memory_free_bytes, tasks_free: still to be had; a task is a
    process or thread.
    """

    cpus: float | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    tasks_free: int | None = None


class MachineFacts(msgspec.Struct, frozen=True):
    """What the processes started here can use.

    cpus: those they may run on. cores: how many of them they can keep busy, at least 1. gpus_absent: why `gpus` is
    empty, if it is.
    """

    cpus: tuple[int, ...]
    cores: int
    memory_bytes: int
    memory_free_bytes: int
    bounds: Bounds
    numa_nodes: tuple[NumaNode, ...]
    gpus: tuple[Gpu, ...]
    gpus_absent: str


def machine_facts(root: Path = ROOT) -> MachineFacts:
    """The facts of this machine, as of now."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    bounds = cgroup_bounds(root)
    memory = _kibibytes(root / "proc/meminfo")
    gpus, gpus_absent = _gpus()
    return MachineFacts(
        cpus=cpus,
        cores=max(1, int(min(len(cpus), bounds.cpus or len(cpus)))),
        memory_bytes=min(memory["MemTotal"], bounds.memory_bytes or memory["MemTotal"]),
        memory_free_bytes=_least(memory["MemAvailable"], bounds.memory_free_bytes),
        bounds=bounds,
        numa_nodes=tuple(_numa_nodes(root)),
        gpus=gpus,
        gpus_absent=gpus_absent,
    )


def cgroup_bounds(root: Path = ROOT) -> Bounds:
    """The tightest bounds of this process's cgroups and all groups above them."""
    cpus: list[float] = []
    memory: list[int] = []
    memory_free: list[int] = []
    tasks_free: list[int] = []
    for group in _groups(root, "cpu"):
        quota, period = _cpu_quota(group)
        if quota is not None and quota > 0:
            cpus.append(quota / period)
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.max", group / "memory.limit_in_bytes")
        if limit is not None and limit < _UNLIMITED_BYTES:
            used = _number(group / "memory.current", group / "memory.usage_in_bytes") or 0
            memory.append(limit)
            memory_free.append(max(0, limit - used + _reclaimable_bytes(group)))
    for group in _groups(root, "pids"):
        limit = _number(group / "pids.max")
        if limit is not None:
            tasks_free.append(max(0, limit - (_number(group / "pids.current") or 0)))
    return Bounds(
        min(cpus, default=None),
        min(memory, default=None),
        min(memory_free, default=None),
        min(tasks_free, default=None),
    )


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Directories of the cgroup of this process for `controller`, and of those above it up to its mount."""
    mounts = list(_cgroup_mounts(root))
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mounted, mount_point, options in mounts:
            if controllers and controller not in options:
                continue
            if bool(controllers) == (options is _UNIFIED):
                continue
            group = _below(path, mounted, mount_point)
            while group != mount_point:
                yield group
                group = group.parent
            yield mount_point


_UNIFIED: frozenset[str] = frozenset({"cgroup2"})


def _cgroup_mounts(root: Path) -> Iterator[tuple[str, Path, frozenset[str]]]:
    """(path of the group that is mounted, where, controllers); _UNIFIED instead of controllers for version 2."""
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        mounted, mount_point = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), f) for f in mount.split()[3:5])
        where = root / mount_point.lstrip("/")
        if kind == "cgroup2":
            yield mounted, where, _UNIFIED
        elif kind == "cgroup":
            yield mounted, where, frozenset(options.split(","))


def _below(path: str, mounted: str, mount_point: Path) -> Path:
    """Where the group at `path` is seen. A container may see only the mount, with its own group at the top."""
    if path == mounted or not path.startswith(mounted.rstrip("/") + "/"):
        return mount_point
    return mount_point / path.removeprefix(mounted).strip("/")


def _cpu_quota(group: Path) -> tuple[float | None, float]:
    """(microseconds of CPU time per period, period); None or less than 0 for no quota."""
    words = _words(group / "cpu.max")
    if words:
        return (None if words[0] == "max" else float(words[0])), float(words[1])
    return _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us") or 1


def _reclaimable_bytes(group: Path) -> int:
    """Cached file pages, which the kernel drops when memory is wanted."""
    for line in _lines(group / "memory.stat"):
        name, value = line.split()
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _numa_nodes(root: Path) -> Iterator[NumaNode]:
    directories = (root / "sys/devices/system/node").glob("node[0-9]*")
    for directory in sorted(directories, key=lambda path: int(path.name.removeprefix("node"))):
        memory = _kibibytes(directory / "meminfo")
        yield NumaNode(
            int(directory.name.removeprefix("node")),
            tuple(_cpu_list(" ".join(_words(directory / "cpulist")))),
            memory.get("MemTotal", 0),
        )


def _cpu_list(text: str) -> Iterator[int]:
    """The numbers in the kernel's notation for CPU sets, such as 0-3,8."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _gpus() -> tuple[tuple[Gpu, ...], str]:
    """The GPUs, and why there are none. Without a driver or its library that is no error."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), str(error)
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        gpus = tuple(
            Gpu(
                number,
                pynvml.nvmlDeviceGetName(handle),
                pynvml.nvmlDeviceGetUUID(handle),
                int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            )
            for number, handle in enumerate(handles)
        )
        return gpus, "" if gpus else "the driver shows no GPU"
    finally:
        pynvml.nvmlShutdown()


# --- small files of the kernel ----------------------------------------------------------------------------------------


def _lines(path: Path) -> list[str]:
    """The lines of a file; none if this kernel has no such file."""
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _number(*paths: Path) -> int | None:
    """The number in the first of these files that exists; None for "max" or if none exists."""
    for path in paths:
        words = _words(path)
        if words:
            return None if words[0] == "max" else int(words[0])
    return None


def _kibibytes(path: Path) -> dict[str, int]:
    """Bytes by name, of a file with lines such as `[Node 0] MemTotal:  1024 kB`."""
    found = re.findall(r"(\w+):\s+(\d+) kB", "\n".join(_lines(path)))
    return {name: int(value) * 1024 for name, value in found}


def _least(value: int, bound: int | None) -> int:
    return value if bound is None else min(value, bound)

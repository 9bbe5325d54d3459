"""What a machine has, read from files laid out as the kernel lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hiersched.limits import MIB
from hiersched.runtime.machine import Bounds, NumaNode, cgroup_bounds, machine_facts

MEMINFO = "MemTotal:       16384 kB\nMemFree:         1024 kB\nMemAvailable:    8192 kB\n"


def write(root: Path, **files: str) -> None:
    """Files by path, with `__` for `/`, `_DOT_` for `.`: a machine in a directory."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """A machine with version 2 cgroups, and this process in /job/step."""
    write(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/job/step\n",
        proc__self__mountinfo="31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n",
    )
    return tmp_path


def test_the_tightest_bound_of_all_groups_above_counts(unified):
    write(
        unified,
        sys__fs__cgroup__job__cpu_DOT_max="150000 100000\n",
        sys__fs__cgroup__job__step__cpu_DOT_max="max 100000\n",
        sys__fs__cgroup__job__memory_DOT_max="4194304\n",
        sys__fs__cgroup__job__memory_DOT_current="2097152\n",
        sys__fs__cgroup__job__memory_DOT_stat="anon 1048576\ninactive_file 524288\n",
        sys__fs__cgroup__job__step__memory_DOT_max="8388608\n",
        sys__fs__cgroup__job__step__memory_DOT_current="0\n",
        sys__fs__cgroup__job__pids_DOT_max="100\n",
        sys__fs__cgroup__job__pids_DOT_current="40\n",
        sys__fs__cgroup__job__step__pids_DOT_max="max\n",
    )
    assert cgroup_bounds(unified) == Bounds(1.5, 4 * MIB, 2 * MIB + MIB // 2, 60)


def test_the_facts_are_what_both_the_machine_and_its_cgroups_allow(unified):
    write(unified, sys__fs__cgroup__job__cpu_DOT_max="50000 100000\n", sys__fs__cgroup__job__memory_DOT_max="4194304\n")
    facts = machine_facts(unified)
    assert facts.cores == 1  # half a core still runs one process at a time
    assert (facts.memory_bytes, facts.memory_free_bytes) == (4 * MIB, 4 * MIB)


def test_version_1_says_no_limit_by_numbers(tmp_path):
    write(
        tmp_path,
        proc__self__cgroup="5:cpu,cpuacct:/a\n4:memory:/a\n3:pids:/a\n1:name=systemd:/\n",
        proc__self__mountinfo=(
            "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            "36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
        ),
        sys__fs__cgroup__cpu__a__cpu_DOT_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__a__cpu_DOT_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__a__memory_DOT_limit_in_bytes="9223372036854771712\n",
        sys__fs__cgroup__pids__a__pids_DOT_max="max\n",
    )
    assert cgroup_bounds(tmp_path) == Bounds()
    write(
        tmp_path,
        sys__fs__cgroup__cpu__cpu_DOT_cfs_quota_us="300000\n",
        sys__fs__cgroup__cpu__cpu_DOT_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__a__memory_DOT_limit_in_bytes="2097152\n",
        sys__fs__cgroup__memory__a__memory_DOT_usage_in_bytes="1048576\n",
        sys__fs__cgroup__memory__a__memory_DOT_stat="total_inactive_file 4096\n",
        sys__fs__cgroup__pids__a__pids_DOT_max="10\n",
        sys__fs__cgroup__pids__a__pids_DOT_current="12\n",
    )
    assert cgroup_bounds(tmp_path) == Bounds(3.0, 2 * MIB, MIB + 4096, 0)


def test_a_container_that_sees_its_own_group_at_the_top_reads_it_there(tmp_path):
    write(
        tmp_path,
        proc__self__cgroup="3:pids:/docker/abc\n0::/elsewhere\n",
        proc__self__mountinfo=(
            r"36 31 0:33 /docker/abc /sys/fs/cgroup/my\040pids rw - cgroup cgroup rw,pids" + "\n"
            "37 31 0:34 /other /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        ),
    )
    write(tmp_path / "sys/fs/cgroup/my pids", pids_DOT_max="7\n", pids_DOT_current="2\n")
    write(tmp_path / "sys/fs/cgroup/unified", memory_DOT_max="1048576\n")
    assert cgroup_bounds(tmp_path) == Bounds(None, MIB, MIB, 5)


def test_a_machine_without_cgroups_has_no_bounds(tmp_path):
    assert cgroup_bounds(tmp_path) == Bounds()


def test_numa_nodes_come_in_order_with_their_cpus_and_memory(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO)
    for number, cpus in ((10, "8\n"), (2, "4-5,7\n"), (0, "0-3\n"), (3, "\n")):
        write(
            tmp_path / f"sys/devices/system/node/node{number}",
            cpulist=cpus,
            meminfo=f"Node {number} MemTotal:       1024 kB\nNode {number} MemFree:        512 kB\n",
        )
    assert machine_facts(tmp_path).numa_nodes == (
        NumaNode(0, (0, 1, 2, 3), MIB),
        NumaNode(2, (4, 5, 7), MIB),
        NumaNode(3, (), MIB),
        NumaNode(10, (8,), MIB),
    )


def test_this_machine_has_cores_and_memory_and_says_why_it_has_no_gpu():
    facts = machine_facts()
    assert set(facts.cpus) == os.sched_getaffinity(0)
    assert 1 <= facts.cores <= len(facts.cpus)
    assert 0 < facts.memory_free_bytes <= facts.memory_bytes
    assert bool(facts.gpus) != bool(facts.gpus_absent)
    assert all(gpu.memory_bytes > 0 and gpu.name for gpu in facts.gpus)

"""Costs measured between real processes, and how many engines the bounds of a machine allow."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hiersched.core.costs import Costs
from hiersched.core.topology import Host, plan_tree
from hiersched.errors import CapacityError, PlanError, StartError
from hiersched.limits import ENGINES_MAX, MIB
from hiersched.runtime import probe
from hiersched.runtime.probe import Bound, check_bounds, need_of

CORES = 4


# --- costs ------------------------------------------------------------------------------------------------------------


def test_the_costs_of_this_machine_are_times_that_a_tree_can_be_planned_with():
    costs = probe.measure_costs(0.2)
    for name in ("send_s", "receive_s", "engine_s", "process_s"):
        assert 0 < getattr(costs, name) < 1, name
    assert costs.network_s == Costs().network_s  # needs a second host to be measured
    assert plan_tree([Host("here", 100, CORES)], costs).engines == 100


def test_a_far_end_that_dies_is_reported_with_what_it_said(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no room today')")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tmp_path), before]))
    try:
        with pytest.raises(StartError, match="no room today"):
            probe.measure_costs(0.2)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def test_the_far_end_leaves_with_the_near_end():
    """Its standard input ends when the measuring process does, however that ends."""
    with tempfile.TemporaryDirectory() as directory:
        far_end = subprocess.Popen(
            [sys.executable, "-m", "hiersched.runtime.echo", f"ipc://{directory}/nobody"], stdin=subprocess.PIPE
        )
        far_end.communicate(b"1\n2\n", timeout=30)
    assert far_end.returncode == 0


# --- capacity ---------------------------------------------------------------------------------------------------------


def bounds(**free: int) -> list[Bound]:
    """A machine with ample room but for what is named."""
    ample = dict.fromkeys(probe.Need._fields, 10**15)
    return [Bound(f"the bound on {name}", name, value, "Raise it.") for name, value in (ample | free).items()]


def test_what_fits_is_not_refused():
    check_bounds(1000, CORES, bounds())
    check_bounds(1000, CORES, bounds(**need_of(1000, CORES)._asdict()))


@pytest.mark.parametrize("resource", probe.Need._fields)
def test_one_unit_too_few_is_refused_by_name_with_the_number_that_fits(resource):
    free = getattr(need_of(1000, CORES), resource) - 1
    with pytest.raises(CapacityError, match=f"the bound on {resource}") as caught:
        check_bounds(1000, CORES, bounds(**{resource: free}))
    fit = int(str(caught.value).split(" allows ")[1].split()[0])
    assert fit < 1000
    check_bounds(fit, CORES, bounds(**{resource: free}))
    with pytest.raises(CapacityError):
        check_bounds(fit + 1, CORES, bounds(**{resource: free}))


def test_the_tightest_of_several_bounds_is_named():
    with pytest.raises(CapacityError, match="the bound on memory_bytes allows 3"):
        check_bounds(5000, CORES, bounds(tasks=300, memory_bytes=30 * MIB))


def test_a_machine_without_room_allows_no_engine():
    with pytest.raises(CapacityError, match="allows 0"):
        check_bounds(1, CORES, bounds(memory_bytes=0))


def test_a_number_that_no_cluster_can_have_is_refused_as_such():
    for engines in (0, ENGINES_MAX + 1):
        with pytest.raises(PlanError):
            probe.capacity(engines)


def test_this_machine_has_room_for_a_few_engines_but_not_for_a_million():
    probe.capacity(2)
    with pytest.raises(CapacityError, match="engines do not fit on this machine"):
        probe.capacity(ENGINES_MAX)


def test_a_low_limit_of_open_files_is_noticed_before_anything_starts():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        with pytest.raises(CapacityError, match=r"RLIMIT_NOFILE\) allows 2\d\d .*ulimit -n"):
            probe.capacity(500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_bounds_of_a_container_and_of_its_machine_are_all_found(tmp_path: Path):
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/loadavg").write_text("0.00 0.01 0.05 2/350 4242\n")
    (tmp_path / "proc/sys/kernel/pid_max").write_text("32768\n")
    (tmp_path / "proc/sys/kernel/threads-max").write_text("1350\n")
    facts = probe.machine_facts()
    found = {bound.name: bound for bound in probe.bounds_here(facts, tmp_path)}
    assert found["kernel.pid_max"].free == 32768 - 350
    assert found["kernel.threads-max"].free == 1000
    assert found["free memory"].free == facts.memory_free_bytes

"""The check for what tests leave behind can itself fail: each kind of leftover is made, seen, named and removed."""

import os
import subprocess
import sys
import tempfile
import threading
from multiprocessing import shared_memory
from pathlib import Path

import pytest
import zmq

from tests import leftovers

pytestmark = pytest.mark.processes

SLEEPER = "import sys; sys.stdin.read()"
HOLDER = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 64)
    print("held", flush=True)
    sys.stdin.read()
"""
DAEMONISED_SLEEPER = """
import os, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    while True:
        time.sleep(60)
"""


def only_line(before):
    """The one thing left since `before`, described."""
    (line,) = leftovers.describe(leftovers.left_since(before))
    return line


def test_nothing_is_left_when_nothing_was_done():
    before = leftovers.census(search=True)
    assert leftovers.describe(leftovers.wait_until_gone(before)) == []


def test_a_child_process_is_named_until_it_ends():
    before = leftovers.census(search=True)
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE) as child:
        assert only_line(before).startswith(f"process {child.pid}: ")
        child.stdin.close()
    assert leftovers.describe(leftovers.wait_until_gone(before)) == []


def test_a_process_that_left_the_family_is_found_and_killed():
    before = leftovers.census(search=True)
    with subprocess.Popen([sys.executable, "-c", DAEMONISED_SLEEPER], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
    left = leftovers.wait_until_gone(before, within_s=0.0)
    assert leftovers.describe(left)[0].startswith(f"process {pid}: ")
    leftovers.remove(left)
    assert leftovers.describe(leftovers.left_since(before)) == []


def test_a_thread_that_would_keep_python_alive_is_named():
    before = leftovers.census(search=False)
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="forgotten")
    thread.start()
    assert only_line(before) == "thread forgotten"
    done.set()
    thread.join()
    assert leftovers.describe(leftovers.left_since(before)) == []


def test_a_shared_memory_segment_is_named_and_removed():
    before = leftovers.census(search=False)
    segment = shared_memory.SharedMemory(create=True, size=64)
    segment.close()
    assert only_line(before) == f"file /dev/shm/{segment.name.lstrip('/')}"
    segment.unlink()
    assert leftovers.describe(leftovers.left_since(before)) == []


def test_a_segment_that_another_run_holds_is_not_ours():
    before = leftovers.census(search=False)
    segment = shared_memory.SharedMemory(create=True, size=64)
    path = f"/dev/shm/{segment.name.lstrip('/')}"
    environment = {**os.environ, leftovers.RUN_VARIABLE: "another run"}
    command = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert leftovers.describe(leftovers.left_since(before)) == []
        holder.stdin.close()
    assert only_line(before) == f"file {path}"
    segment.close()
    segment.unlink()


def test_a_socket_file_in_a_temporary_directory_is_removed_with_it():
    before = leftovers.census(search=False)
    directory = Path(tempfile.mkdtemp(prefix="hiersched-"))
    (directory / "root.sock").touch()
    left = leftovers.left_since(before)
    assert leftovers.describe(left) == [f"file {directory}"]
    leftovers.remove(left)
    assert not directory.exists()


def test_an_open_zmq_socket_is_named_until_its_context_ends():
    before = leftovers.census(search=True)
    with zmq.Context() as context, context.socket(zmq.PAIR):
        assert only_line(before).startswith("zmq socket ")
    assert leftovers.describe(leftovers.wait_until_gone(before)) == []

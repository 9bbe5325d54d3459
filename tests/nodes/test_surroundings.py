"""What code changes around it is put back; in processes of their own, for it is signals and descriptors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

FRAME = """
import json, os, signal, sys
from hiersched.nodes.surroundings import Surroundings, end_fork
from hiersched.nodes.transcript import Transcript
from hiersched.runtime.doorbell import DOORBELL_SIGNAL

transcript = Transcript()
surroundings = Surroundings(transcript)
sys.stdout, sys.stderr, sys.stdin = surroundings.streams
said = []
handlers = {{signal.SIGINT: lambda *_: said.append("interrupt"), DOORBELL_SIGNAL: lambda *_: said.append("doorbell")}}
forks = []
surroundings.guard(handlers, lambda: forks.append(os.getpid()))
{code}
os.write(1, json.dumps(result).encode())
"""


def run(code: str) -> Any:
    """What `code` leaves as `result`, in a process with surroundings."""
    done = subprocess.run(
        [sys.executable, "-c", FRAME.format(code=code)], capture_output=True, cwd=ROOT, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_handlers_and_masks_are_put_back() -> None:
    code = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(DOORBELL_SIGNAL, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
surroundings.restore()
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), DOORBELL_SIGNAL)
result = said
"""
    assert sorted(run(code)) == ["doorbell", "interrupt"]


def test_a_blocked_doorbell_rings_when_the_handler_is_there() -> None:
    code = """
result = said
"""
    before = "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 7})\n"
    before += "os.kill(os.getpid(), signal.SIGRTMIN + 7)\n"
    done = subprocess.run(
        [sys.executable, "-c", before + FRAME.format(code=code)], capture_output=True, cwd=ROOT, check=True, timeout=60
    )
    assert json.loads(done.stdout) == ["doorbell"]


def test_closed_descriptors_are_opened_and_others_left_alone() -> None:
    code = """
os.close(0); os.close(2)
taken = os.open("/dev/zero", os.O_RDONLY)
surroundings.restore()
result = [os.readlink("/proc/self/fd/0"), os.readlink("/proc/self/fd/2") != "/dev/zero"]
"""
    assert run(code) == ["/dev/zero", True]


def test_the_log_is_reached_whatever_became_of_stderr() -> None:
    code = """
os.close(2)
surroundings.log("still here")
result = None
"""
    done = subprocess.run(
        [sys.executable, "-c", FRAME.format(code=code)], capture_output=True, cwd=ROOT, check=True, timeout=60
    )
    assert done.stderr == b"still here\n"


def test_a_forked_process_takes_signals_as_any_does() -> None:
    code = """
pid = os.fork()
if pid == 0:
    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    os.kill(os.getpid(), DOORBELL_SIGNAL)
    print("to the log")
    os._exit(10 + plain + 2 * surroundings.forked + 4 * len(forks) + 8 * len(said))
result = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), surroundings.forked, forks]
"""
    done = subprocess.run(
        [sys.executable, "-c", FRAME.format(code=code)], capture_output=True, cwd=ROOT, check=True, timeout=60
    )
    assert done.stdout.startswith(b"to the log\n")
    assert json.loads(done.stdout.removeprefix(b"to the log\n")) == [10 + 1 + 2 + 4, False, []]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ("None", 0, b""),
        ("SystemExit(3)", 3, b""),
        ("SystemExit(None)", 0, b""),
        ("SystemExit('why')", 1, b"why\n"),
        ("ValueError('why')", 1, b"ValueError: why\n"),
    ],
)
def test_a_fork_ends_as_a_script_would(error: str, status: int, said: bytes) -> None:
    code = f"print('unflushed', file=sys.__stdout__, end='')\nend_fork({error})\nresult = None"
    done = subprocess.run(
        [sys.executable, "-c", FRAME.format(code=code)], capture_output=True, cwd=ROOT, check=False, timeout=60
    )
    assert (done.returncode, done.stderr, done.stdout) == (status, said, b"unflushed")

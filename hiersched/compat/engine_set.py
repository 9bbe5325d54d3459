"""Runs a set of engines on a cluster whose controller is ours, in the place of as many processes of ipengine.

    python -m hiersched.compat.engine_set --n=4 [the flags of ipengine]

The engines are forked where the controller runs; this process stands for them. It ends when they have all ended, and
they end with it, however it ends. It is two processes for that: one that was started, which only passes signals on, and
its child, which has the session. If the first is killed, the kernel tells the child, and that stops the engines.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import NoReturn

from ipyparallel.apps.baseapp import catch_config_error
from ipyparallel.engine.app import IPEngine, aliases
from traitlets import Dict, Integer
from traitlets.config import Config

from hiersched.client.session import Session
from hiersched.compat import connection_files
from hiersched.compat.engine_crew import Crew, Startup
from hiersched.errors import ConnectionFileError, HierschedError
from hiersched.limits import CONNECTION_LOOK_PERIOD_S
from hiersched.runtime.connection import Connection

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

_JOB_CONTROL = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
_OWN = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH}
PASSED_ON = frozenset(signal.Signals) - _JOB_CONTROL - _FAULTS - _OWN  # the others are about this process itself
_SHELL_SECTIONS = frozenset({"DisplayFormatter", "PlainTextFormatter", "InlineBackend", "IPCompleter", "ScriptMagics"})
_IGNORED = {
    "sshserver": "the engines run where the controller does",
    "sshkey": "the engines run where the controller does",
    "use_mpi": "the engines are no MPI processes",
    "id": "engines are numbered by the controller",
    "registration_url": "the connection file leads to the controller",
    "enable_nanny": "engines are watched by whoever has forked them",
    "max_heartbeat_misses": "the end of a process is seen at once, without beats",
    "timeout": "the end of a process is seen at once, without beats",
}


class EngineSet(IPEngine):
    """ipengine's application, with a set of engines in the place of one."""

    n = Integer(1, config=True, help="How many engines there are to be.")
    aliases = Dict({**aliases, "n": "EngineSet.n"})

    @catch_config_error
    def initialize(self, argv: list[str] | None = None) -> None:
        """Read flags, variables and configuration."""
        super(IPEngine, self).initialize(argv)  # IPEngine's own would connect
        for name in self.config.get(type(self).__name__, {}).keys() | self.config.IPEngine.keys():
            if name in _IGNORED:
                self.log.warning("%s is ignored: %s", name, _IGNORED[name])

    def start(self) -> None:
        """Be the engines until they have ended. Exits with 0 if they came and were ended, or their cluster was."""
        try:
            found = self.find_root()
        except ConnectionFileError as error:
            self.log.error("%s", error)
            self.exit(1)
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _become(lambda: self._run(found), parent)
        code = _pass_signals_on(child)
        if code < 0:
            self.log.error(
                "what had the session was killed by signal %i: the engines go on until they are stopped", -code
            )
        self.exit(code if code >= 0 else 128 - code)

    def find_root(self) -> Connection:
        """The connection to the root: as the variable says that Cluster sets, else as the connection file does.

        Waits for the file as long as ipengine would. Raises ConnectionFileError.
        """
        told: ConnectionFileError | None = None
        if self.connection_info_env and not self.url_file:
            try:
                return connection_files.root_in(json.loads(self.connection_info_env), "$IPP_CONNECTION_INFO")
            except ConnectionFileError as error:  # the file may know more
                told = error
        path = Path(self.url_file or Path(self.profile_dir.security_dir, self._client_file_name()))
        deadline = time.monotonic() + self.wait_for_url_file
        while True:
            try:
                return connection_files.root_in(connection_files.read(path), str(path))
            except ConnectionFileError as error:
                if time.monotonic() > deadline:
                    raise told or error from None
            time.sleep(CONNECTION_LOOK_PERIOD_S)

    def _client_file_name(self) -> str:
        return f"{self.url_file_name.removesuffix('engine.json')}client.json"

    def _run(self, found: Connection) -> int:
        """In the child: have the engines started, and be with them until they have ended. The exit code."""
        shell = self.config.InteractiveShellApp
        files = [os.environ.get("PYTHONSTARTUP", ""), *shell.get("exec_files", []), self.startup_script]
        lines = [*shell.get("exec_lines", []), self.startup_command]
        startup = Startup(
            environ=dict(os.environ),
            directory=os.getcwd(),
            path=[entry for entry in sys.path if entry],
            settings=of_shell(self.config),
            files=[os.path.abspath(os.path.expanduser(file)) for file in files if file],
            lines=[line for line in lines if line],
        )
        try:
            with closing(Session(found)) as session:
                return Crew(session, startup, self.log).run(self.n, PASSED_ON)
        except (HierschedError, TimeoutError) as error:
            self.log.error("%s", error)
            return 1


def of_shell(config: Config) -> Config:
    """What a configuration says about IPython, for a shell of ours: what it says of a kernel's own shell as well."""
    said = deepcopy(config)
    settings = Config({"InteractiveShell": said.get("InteractiveShell", Config())})
    settings.InteractiveShell.merge(said.get("ZMQInteractiveShell", Config()))
    for section in _SHELL_SECTIONS.intersection(said):
        settings[section] = said[section]
    return settings


def _become(run: Callable[[], int], parent: int) -> NoReturn:
    """In the child: do the work, told to stop if the parent ends."""
    code = 1
    try:
        os.setpgid(0, 0)  # what a terminal sends comes once: from the parent
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == parent:
            code = run()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _pass_signals_on(child: int) -> int:
    """In the parent: pass on what comes until the child has ended. Its exit code; negative: what signal killed it."""
    while True:
        number = signal.sigwait(PASSED_ON | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Run a set of engines until they have ended."""
    EngineSet.launch_instance()


if __name__ == "__main__":
    main()

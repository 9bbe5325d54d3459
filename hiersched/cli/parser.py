"""What can be written after `hiersched`, and what a slip of the fingers gets.

Commands are imported when they run: `hiersched stop` does not pay for what `hiersched start` needs.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from hiersched import __version__


class _Parser(argparse.ArgumentParser):
    """Names what there is when something is asked for that is not."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords, allow_abbrev=False)

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """End with a line that tells which options there are."""
        word = words[0].partition("=")[0]
        known = [name for action in self._actions for name in action.option_strings]
        near = difflib.get_close_matches(word.lstrip("-"), [name.lstrip("-") for name in known], 1)
        hint = f"did you mean --{near[0]}? " if near else ""
        self.error(f"{word!r} is unknown: {hint}there are {', '.join(known)}")

    def error(self, message: str) -> NoReturn:
        """End with one line on standard error, and code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The words of a command line (by default this process's), with `command(options)` to run. Ends at a mistake."""
    parser, commands = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if options.name is None:
        parser.error(f"give a COMMAND: there are {', '.join(commands)}")
    if unknown:
        commands[options.name].unknown(unknown)
    return options


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(prog="hiersched", description="Many Python engines under a tree of schedulers.")
    parser.add_argument("--version", action="version", version=f"hiersched {__version__}")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND")
    for name, (text, add, module) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add(command)
        command.set_defaults(command=_later(module, name))
    return parser, commands.choices


def _later(module: str, name: str) -> Callable[[argparse.Namespace], None]:
    def run(options: argparse.Namespace) -> None:
        getattr(import_module(f"hiersched.cli.{module}"), name)(options)

    return run


# --- options ----------------------------------------------------------------------------------------------------------


def _start(parser: _Parser) -> None:
    parser.add_argument("-n", "--n", type=int, default=None, metavar="N", help="engines; by default one per core")
    _which(parser, "a name for it; by default one is made")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="BLAS and OpenMP threads of each engine")
    parser.add_argument(
        "--preload", action="append", default=[], metavar="MODULE", help="import it before engines fork"
    )
    parser.add_argument("--ip", default=None, help="also listen on this address, with CURVE keys")
    parser.add_argument("--restart", choices=["never", "always"], default="never", help="replace engines that end")
    parser.add_argument("--engine-timeout", type=float, default=None, metavar="S", help="for the start of the engines")
    parser.add_argument(
        "--daemonize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave it running; --no-daemonize stays, and stops it when told to",
    )
    _shape(parser)


def _stop(parser: _Parser) -> None:
    _which(parser, "which; by default the newest")
    parser.add_argument("--all", action="store_true", help="every cluster of the profile")
    parser.add_argument("--force", action="store_true", help="by signals, if it does not answer")


def _status(parser: _Parser) -> None:
    _which(parser, "which; by default all of the profile")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--watch", nargs="?", type=float, const=1.0, default=None, metavar="S", help="look again every so many seconds"
    )
    parser.add_argument("--looks", type=int, default=None, metavar="N", help="with --watch: end after so many")


def _list(parser: _Parser) -> None:
    _profile(parser, "by default all of them")
    parser.add_argument("--json", action="store_true", help="for programs")


def _engines(parser: _Parser) -> None:
    _which(parser, "where; by default the newest")
    parser.add_argument("-n", "--n", type=int, default=None, metavar="N", help="how many more; by default one per core")
    parser.add_argument("--set", default=None, metavar="ID", help="a name for the set; by default one is made")


def _scale(parser: _Parser) -> None:
    _which(parser, "which; by default the newest")
    parser.add_argument("-n", "--n", type=int, required=True, metavar="N", help="engines to have then")


def _signal(parser: _Parser) -> None:
    parser.add_argument("signal", metavar="SIGNAL", help="by its name or number: INT interrupts what runs")
    _which(parser, "which; by default the newest")
    parser.add_argument("--engines", default=None, metavar="IDS", help="such as 0-3,7; by default all")


def _clean(parser: _Parser) -> None:
    _profile(parser, "by default all of them")
    parser.add_argument("--force", action="store_true", help="even the files of clusters that seem to run")


def _plan(parser: _Parser) -> None:
    parser.add_argument("-n", "--n", type=int, required=True, metavar="N", help="engines")
    parser.add_argument("--hosts", type=int, default=1, metavar="N", help="hosts they run on")
    parser.add_argument(
        "--cores", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="cores of each host"
    )
    parser.add_argument("--measure", action="store_true", help="measure the costs on this machine first")
    _shape(parser)


def _sim(parser: _Parser) -> None:
    """The fields of simulation.report.Scenario."""
    parser.add_argument("--engines", type=int, default=1000, metavar="N", help="engines of the simulated cluster")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed gives the same run")
    _shape(parser)
    parser.add_argument("--slots-per-host", type=int, default=64, metavar="N", help="engines of one host")
    parser.add_argument(
        "--run-s", type=float, default=0.0, metavar="S", help="how long the call runs on each engine, s"
    )
    parser.add_argument("--tasks", type=int, default=0, metavar="N", help="load-balanced tasks besides")
    parser.add_argument("--task-s", type=float, default=0.01, metavar="S", help="how long each of them runs, s")
    parser.add_argument("--kill", type=int, default=0, metavar="N", help="engines that die meanwhile")
    parser.add_argument("--kill-schedulers", type=int, default=0, metavar="N", help="sub-schedulers that die meanwhile")
    parser.add_argument("--slow", type=int, default=0, metavar="N", help="engines that are ten times slower")
    parser.add_argument(
        "--partition",
        action="append",
        default=[],
        dest="partitions",
        metavar="LEVEL[:COUNT[:SECONDS]]",
        help="cut schedulers of a level off from above",
    )
    parser.add_argument(
        "--jitter-s", type=float, default=0.0, metavar="S", help="random delay added to each hop, at most, s"
    )
    parser.add_argument("--breaks", type=float, default=0.0, metavar="P", help="chance that a message breaks its link")
    parser.add_argument(
        "--checked",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="check every invariant after every event; by default if the world is small",
    )


def _which(parser: _Parser, text: str) -> None:
    parser.add_argument("--cluster-id", default=None, metavar="ID", help=text)
    _profile(parser, "the profile that its connection file is among")


def _profile(parser: _Parser, text: str) -> None:
    parser.add_argument("--profile", default=None, metavar="NAME", help=text)
    parser.add_argument("--profile-dir", default=None, metavar="PATH", help="the same, by its directory")


def _shape(parser: _Parser) -> None:
    parser.add_argument(
        "--fanout", type=int, default=None, metavar="N", help="child schedulers of one scheduler, at most"
    )
    parser.add_argument(
        "--leaf-engines", type=int, default=None, metavar="N", help="engines of one leaf scheduler, at most"
    )


_COMMANDS: dict[str, tuple[str, Callable[[_Parser], None], str]] = {
    "start": ("start a cluster on this host, and leave it running", _start, "clusters"),
    "stop": ("stop a cluster", _stop, "clusters"),
    "status": ("what runs, what waits, and what was done", _status, "report"),
    "list": ("the clusters of all profiles", _list, "report"),
    "engines": ("start engines more in a cluster that runs", _engines, "clusters"),
    "scale": ("have so many engines: start some, or stop the newest", _scale, "clusters"),
    "signal": ("send a signal to engines", _signal, "clusters"),
    "clean": ("remove what clusters that were killed have left", _clean, "clusters"),
    "plan": ("the tree for a number of engines, with predicted times", _plan, "planning"),
    "sim": ("simulate a cluster of the real schedulers, seeded", _sim, "planning"),
}

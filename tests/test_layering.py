"""Who may import whom, read from the sources.

A module imports leftwards only: units of an earlier layer, or its own unit, never a neighbour in its layer. What
decides (everything up to streaming, and simulation) is pure: time, randomness and everything outside come in as
arguments. A finding is one line, `module: what is wrong`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LAYERS = (
    ("limits", "errors"),
    ("kernels", "protocol"),
    ("core",),
    ("streaming",),
    ("data",),
    ("simulation",),
    ("build", "runtime"),
    ("nodes", "client"),
    ("compat", "monitor"),
    ("cli",),
    ("hiersched",),  # the package's own __init__ and __main__, where the public names meet
)
LAYER_OF = {unit: index for index, layer in enumerate(LAYERS) for unit in layer}
PURE = {"limits", "errors", "kernels", "protocol", "core", "streaming", "simulation"}
WIRES = {"zmq", "tornado", "socket", "subprocess"}
IMPURE = WIRES | {"time", "os", "asyncio", "threading", "multiprocessing", "selectors", "signal"}
RANDOM_TYPES = {"Random", "Generator", "default_rng"}  # generators that the caller seeds; no state of the module's own
OUTSIDE = {"tests", "benchmarks", "launchers"}


def unit_of(name: str) -> str:
    """The part of hiersched that a dotted name belongs to: `hiersched.core.routing` is in `core`."""
    part = [*name.split("."), ""][1]
    return part if part in LAYER_OF else "hiersched"


def imported_names(module: str, tree: ast.AST, *, is_package: bool) -> Iterator[str]:
    """Every dotted name imported anywhere in `module`, with relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            anchor = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*anchor, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def findings(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What `module` imports or uses against the layers."""
    unit = unit_of(module)
    tree = ast.parse(source)
    banned = IMPURE if unit in PURE else WIRES if unit == "data" else set()
    found = []
    for name in imported_names(module, tree, is_package=is_package):
        top, target = name.split(".")[0], unit_of(name)
        if top in OUTSIDE:
            found.append(f"{module}: imports {top}, which is no part of the package")
        elif top in banned:
            found.append(f"{module}: {unit} may not use {top}")
        elif top == "random" and unit in PURE and name not in {"random", "random.Random"}:
            found.append(f"{module}: {name} draws from hidden state; take a random.Random as argument")
        elif top == "hiersched" and target != unit and name != "hiersched.__version__":
            here, there = LAYER_OF[unit], LAYER_OF[target]
            if there == here:
                found.append(f"{module}: {unit} and {target} share a layer and must not know each other")
            elif there > here:
                found.append(f"{module}: {unit} may not import {target}, which is above it")
    if unit in PURE:
        found += [
            f"{module}: {use} draws from hidden state; take a generator as argument" for use in hidden_draws(tree)
        ]
    return found


def hidden_draws(tree: ast.AST) -> Iterator[str]:
    """Uses such as `random.choice` or `np.random.rand`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr not in RANDOM_TYPES:
            owner = ast.unparse(node.value)
            if owner in {"random", "np.random", "numpy.random"}:
                yield f"{owner}.{node.attr}"


def test_every_module_keeps_to_its_layer():
    root = Path(__file__).parent.parent
    found = []
    for path in sorted((root / "hiersched").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        found += findings(module, path.read_text(encoding="utf-8"), is_package=is_package)
    assert not found, "\n" + "\n".join(found)


def test_every_part_of_the_package_has_a_layer():
    root = Path(__file__).parent.parent / "hiersched"
    parts = {path.stem for path in root.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert parts - {"__init__", "__main__"} <= LAYER_OF.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hiersched.core.routing", "import hiersched.runtime.driver"),
        ("hiersched.core.routing", "from hiersched import client"),
        ("hiersched.core.routing", "from hiersched import Cluster"),
        ("hiersched.core.routing", "from ..runtime import driver"),
        ("hiersched.core.routing", "from .. import cli"),
        ("hiersched.core.routing", "def late():\n    from hiersched.data import blobstore"),
        ("hiersched.data.serialize", "from hiersched.simulation.network import Network"),
        ("hiersched.client.views", "from hiersched.nodes.engine import run_engine"),
        ("hiersched.kernels.ring", "from hiersched.protocol import messages"),
        ("hiersched.limits", "from hiersched.errors import Bug"),
        ("hiersched.core.dispatch", "import time"),
        ("hiersched.core.dispatch", "from os import environ"),
        ("hiersched.protocol.framing", "import os.path"),
        ("hiersched.simulation.network", "if True:\n    import asyncio"),
        ("hiersched.core.dispatch", "from random import choice"),
        ("hiersched.core.dispatch", "import random\nrandom.shuffle([])"),
        ("hiersched.core.dispatch", "import numpy as np\nnp.random.rand(3)"),
        ("hiersched.data.blobstore", "import zmq"),
        ("hiersched.client.client", "from tests.worlds import World"),
        ("hiersched.cli", "import benchmarks.broadcast"),
    ],
)
def test_the_check_finds_what_breaks_a_rule(module, source):
    assert len(findings(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hiersched.core.routing", "from hiersched import limits\nfrom hiersched.kernels import bitset"),
        ("hiersched.core.routing", "from . import effects\nfrom .effects import Send\nfrom .. import errors"),
        ("hiersched.core.dispatch", "import random\ndef draw(rng: random.Random): return rng.choice([1])"),
        ("hiersched.simulation.world", "from random import Random\nimport numpy as np\nnp.random.default_rng(7)"),
        ("hiersched.data.blobstore", "import os, mmap, threading"),
        ("hiersched.runtime.driver", "import time, zmq, tornado.ioloop\nfrom hiersched import core"),
        ("hiersched.cli", "from hiersched import __version__\nfrom hiersched.nodes import engine"),
        ("hiersched", "from hiersched.client import Client"),
    ],
)
def test_the_check_lets_through_what_keeps_to_the_rules(module, source):
    assert findings(module, source) == []


def test_a_relative_import_in_a_package_starts_at_the_package_itself():
    assert findings("hiersched.core", "from .routing import Router", is_package=True) == []
    assert len(findings("hiersched.core", "from ..cli import main", is_package=True)) == 1

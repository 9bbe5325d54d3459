"""ipyparallel's source distribution, of the version that is installed: fetched once, checked, unpacked.

It is asked for by its package name, so that the index and its mirrors are those of pip, which also checks the archive
against the index's digest. The tests are used as they are in the archive: each use compares them with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

PACKAGE = "ipyparallel"
CACHE = Path(__file__).parents[2] / "build" / "ipyparallel_suite"
TESTS = Path(PACKAGE) / "tests"
FETCH_TIMEOUT_S = 600


class SuiteError(Exception):
    """The suite cannot be run, or is not what it should be. Says why."""


def source_tree() -> Path:
    """Where the source distribution lies, unpacked and as it was published. Raises SuiteError."""
    wanted = version(PACKAGE)
    archive = CACHE / f"{PACKAGE}-{wanted}.tar.gz"
    tree = CACHE / f"{PACKAGE}-{wanted}"
    if not archive.exists():
        _download(wanted)
    if not archive.exists():
        raise SuiteError(f"pip has fetched no {archive.name} into {CACHE}: {sorted(os.listdir(CACHE))}")
    if not tree.exists():
        _unpack(archive, tree)
    changed = differing(archive, tree)
    if changed:
        raise SuiteError(f"these are not as they were published: {', '.join(changed)}; remove {tree}")
    return tree


def differing(archive: Path, tree: Path) -> list[str]:
    """The files of the package in `tree` that are not those of the archive; none of those that Python has added."""
    found = []
    with tarfile.open(archive) as members:
        for member in members:
            path = Path(*Path(member.name).parts[1:])
            if member.isfile() and path.is_relative_to(PACKAGE):
                data = members.extractfile(member)
                here = tree / path
                if data is None or not here.is_file() or here.read_bytes() != data.read():
                    found.append(str(path))
    return found


def _download(wanted: str) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    asked = [f"--no-binary={PACKAGE}", f"--dest={CACHE}", f"{PACKAGE}=={wanted}"]
    environ = {**os.environ, "IPP_DISABLE_JS": "1"}  # pip looks into its metadata, and would build its web pages
    try:
        subprocess.run([*command, *asked], check=True, timeout=FETCH_TIMEOUT_S, env=environ)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SuiteError(f"the source distribution of {PACKAGE} {wanted} could not be fetched: {error}") from None


def _unpack(archive: Path, tree: Path) -> None:
    partial = tree.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as members:
        members.extractall(partial, filter="data")
    (unpacked,) = partial.iterdir()
    unpacked.rename(tree)
    partial.rmdir()

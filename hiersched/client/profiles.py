"""Where the files of clusters lie: one directory for each profile.

The profile 'default' has the clusters' own directory ($HIERSCHED_DIR or ~/.hiersched), every other one a directory of
its name in there. Unless a profile is named it is the one that IPython was started with. A `profile_dir` is a directory
by its path, and needs no name.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from hiersched.client.shell import current_shell
from hiersched.errors import ConnectionFileError, UserError
from hiersched.limits import START_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.spawn import SOCKETS_PREFIX

DEFAULT = "default"
_NAME_BYTES_MAX = 200  # a file name has at most 255, suffixes included


def directory_of(profile: str | None = None, profile_dir: str | Path | None = None, *, make: bool = True) -> Path:
    """The directory of a profile, by its path or its name. make: for its owner only, if it is not there.

    Raises UserError for a name that cannot be a directory's.
    """
    if profile_dir:
        directory = Path(profile_dir).expanduser().absolute()
    else:
        name = profile or _session_profile()
        if not is_file_name(name):
            raise UserError(f"{name[:40]!r} cannot be a profile: it becomes a directory's name")
        home = connection.clusters_directory()
        directory = home if name == DEFAULT else home / name
    if make:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def name_of(directory: Path) -> str:
    """The name of the profile that has this directory; the directory itself if it has no name."""
    home = connection.clusters_directory()
    if directory == home:
        return DEFAULT
    return directory.name if directory.parent == home else str(directory)


def directories() -> list[Path]:
    """Those of all profiles that have a name, the default one first."""
    home = connection.clusters_directory()
    return [home, *sorted(path for path in home.iterdir() if path.is_dir() and not path.is_symlink())]


def find(
    cluster_file: str | Path | None = None,
    *,
    cluster_id: str | None = None,
    profile: str | None = None,
    profile_dir: str | Path | None = None,
) -> Path:
    """The connection file of a cluster: the one given, or by the cluster's id, or the newest of the profile.

    Where our own profile has none, IPython's profile of that name may: a controller of ours that ipyparallel has
    started writes ipyparallel's files. Raises ConnectionFileError if there is none.
    """
    if cluster_file:
        return Path(cluster_file).expanduser()
    directory = directory_of(profile, profile_dir, make=False)
    try:
        if not cluster_id:
            return connection.newest(directory)
        path = connection.path_of(cluster_id, directory)
        if not path.exists():
            known = connection.names(directory)
            others = f"There are {', '.join(map(repr, known))}" if known else "There is no cluster at all"
            raise ConnectionFileError(f"no cluster {cluster_id!r} in {directory}. {others}.")
        return path
    except ConnectionFileError:
        theirs = _find_ipyparallels(profile, profile_dir, cluster_id)
        if theirs is None:
            raise
        return theirs


def _find_ipyparallels(profile: str | None, profile_dir: str | Path | None, cluster_id: str | None) -> Path | None:
    """ipyparallel's file for clients, of the cluster of this id, or the newest, if it leads to a root that runs."""
    if profile_dir:
        home = directory_of(profile, profile_dir, make=False)
    else:
        from IPython.paths import get_ipython_dir  # not before it is needed

        home = Path(get_ipython_dir(), f"profile_{profile or _session_profile()}")
    name = f"ipcontroller-{glob.escape(cluster_id)}-client.json" if cluster_id else "ipcontroller*-client.json"
    ages = {}
    for path in home.glob(f"security/{name}"):
        with contextlib.suppress(ConnectionFileError, FileNotFoundError):  # ipyparallel's own, or ended
            connection.read(path)
            ages[path] = path.stat().st_mtime_ns
    return max(ages, key=ages.__getitem__, default=None)


def clean_cluster_files(
    profile_dirs: str | Path | Iterable[str | Path] | None = None, *, force: bool = False
) -> list[Path]:
    """Remove what clusters that were killed have left: connection files, logs and sockets. What was removed.

    profile_dirs: where to look; by default all profiles. force: also the files of clusters that seem to run; they go on
    then, but cannot be found any more.
    """
    named = directories()
    if profile_dirs is None:
        profile_dirs = named
    elif isinstance(profile_dirs, str | Path):
        profile_dirs = [profile_dirs]
    removed = []
    for directory in map(Path, profile_dirs):
        lone = [path for path in sorted(directory.glob("*.log")) if directory in named and _is_lone(path)]
        for path in sorted(directory.glob("*.json")):
            if connection.is_ours(path) and (force or connection.is_free(path)):
                removed += sweep(path)
        removed += [path for path in lone if _remove(path)]
    return removed


def sweep(cluster_file: Path) -> list[Path]:
    """Remove a connection file, and the log and the sockets of its cluster. What was there to be removed."""
    files = [cluster_file, cluster_file.with_suffix(".log")]
    with contextlib.suppress(ConnectionFileError):
        sockets = sockets_of(connection.read_any(cluster_file))
        if sockets is not None:
            files.append(sockets)
    return [path for path in files if _remove(path)]


def sockets_of(found: connection.Connection) -> Path | None:
    """The directory of a cluster's sockets, if it has one of its own."""
    sockets = Path(found.address.removeprefix("ipc://")).parent
    return sockets if sockets.name.startswith(SOCKETS_PREFIX) else None


def is_file_name(text: str) -> bool:
    """Whether this can be the name of a file, suffixes added."""
    if not text or text[0] == "." or "/" in text or not text.isprintable():
        return False
    return len(os.fsencode(text)) <= _NAME_BYTES_MAX


def _remove(path: Path) -> bool:
    """Remove a file or directory; whether it was there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)  # another may be removing it as well
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _is_lone(log: Path) -> bool:
    """A log without a connection file, and too old for a cluster that is starting: it told of a bug."""
    return not log.with_suffix(".json").exists() and log.stat().st_mtime < time.time() - START_TIMEOUT_S


def _session_profile() -> str:
    """The profile of the IPython that this runs in."""
    return getattr(current_shell(), "profile", None) or DEFAULT

"""A cross-validated grid search over scikit-learn's handwritten digits, on a local cluster and in one process.

The 1,797 images ship with scikit-learn. A quarter is held out; on the rest, 60 support vector machines are each fitted
and scored on 5 folds. joblib hands the 300 fits to the engines of an embedded cluster, then the same search runs in one
process, which must give the same scores. Both sides fit with one BLAS thread. The time of the cluster's search includes
everything from the first call to the last result; starting the cluster is shown beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from joblib.parallel import get_active_backend
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import hiersched

FOLDS = 5
GRID = {"svc__C": np.logspace(-1.0, 2.0, 6), "svc__gamma": np.logspace(-4.0, -1.0, 10)}
PRELOAD = ("sklearn.model_selection", "sklearn.svm")  # engines are forked with these imported
FITS = FOLDS * len(GRID["svc__C"]) * len(GRID["svc__gamma"])

Advance = Callable[[int], None]


@dataclass
class Run:
    """One finished search. search_s: wall time; start_s: of the workers; tree: what the cluster says of itself."""

    search: GridSearchCV
    search_s: float
    workers: int = 1
    start_s: float = 0.0
    plan: Any = None
    levels: tuple[dict[str, Any], ...] = ()


def new_search(**options: Any) -> GridSearchCV:
    """The search, not yet fitted."""
    return GridSearchCV(make_pipeline(StandardScaler(), SVC()), GRID, cv=FOLDS, **options)


def fit_in_one_process(images: np.ndarray, labels: np.ndarray, advance: Advance) -> Run:
    """Search without any parallelism, one BLAS thread."""

    def counted_score(estimator: Any, *fold: np.ndarray) -> float:
        score = estimator.score(*fold)  # what GridSearchCV does when it is given no scoring
        advance(1)
        return score

    with threadpool_limits(limits=1):
        start = time.perf_counter()
        search = new_search(scoring=counted_score).fit(images, labels)
        return Run(search, time.perf_counter() - start)


def fit_on_cluster(images: np.ndarray, labels: np.ndarray, advance: Advance, *, engines: int) -> Run:
    """Search on the engines of a cluster that lives as long as this call."""
    asked = time.perf_counter()
    with hiersched.Cluster(n=engines, threads=1, preload=PRELOAD) as rc:
        start = time.perf_counter()
        hiersched.register_joblib()
        with joblib.parallel_config(backend="hiersched", client=rc), counted_calls(advance):
            search = new_search(n_jobs=-1).fit(images, labels)
        search_s = time.perf_counter() - start
        return Run(search, search_s, len(rc.ids), start - asked, rc.plan, tuple(rc.status()["levels"]))


def fit_on_loky(images: np.ndarray, labels: np.ndarray, advance: Advance, *, engines: int) -> Run:
    """Search on joblib's own processes, for comparison. They start within the search."""
    start = time.perf_counter()
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1), counted_calls(advance):
        search = new_search(n_jobs=engines).fit(images, labels)
    return Run(search, time.perf_counter() - start, engines)


@contextlib.contextmanager
def counted_calls(advance: Advance) -> Iterator[None]:
    """Within a `joblib.parallel_config`: tell `advance` how many calls ended, whenever a batch of them does."""
    backend, _ = get_active_backend()
    submit = backend.submit

    def submit_counted(calls: Any, callback: Callable[[Any], None]) -> Any:
        size = len(calls)

        def on_done(outcome: Any) -> None:
            advance(size)
            callback(outcome)

        return submit(calls, callback=on_done)

    backend.submit = submit_counted
    try:
        yield
    finally:
        backend.submit = submit


def with_progress(console: Console, title: str, fit: Callable[..., Run], *data: np.ndarray, **options: Any) -> Run:
    """Run one of the `fit_...` above under a progress bar."""
    columns = (
        TextColumn(f"{title:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=FITS)
        return fit(*data, lambda fits: progress.advance(bar, fits), **options)


def assert_same_scores(one: Run, many: Run) -> None:
    """End with a message if any fold of any candidate scored differently."""
    for fold in range(FOLDS):
        key = f"split{fold}_test_score"
        here, there = one.search.cv_results_[key], many.search.cv_results_[key]
        if not np.array_equal(here, there):
            places = np.flatnonzero(here != there).tolist()
            raise SystemExit(
                f"the scores differ in fold {fold} for candidates {places}: {here[places]}, {there[places]}"
            )


def print_result(console: Console, run: Run, images: np.ndarray, labels: np.ndarray) -> None:
    """The best candidate, and how it does on the images that the search never saw."""
    table = Table("best candidate", "value", title="Result")
    for name, value in run.search.best_params_.items():
        table.add_row(name, f"{value:.4g}")
    table.add_row(f"accuracy, mean of {FOLDS} folds", f"{run.search.best_score_:.4f}")
    table.add_row(f"accuracy, {len(labels)} held-out images", f"{run.search.score(images, labels):.4f}")
    console.print(table)


def print_tree(console: Console, run: Run) -> None:
    """The tree that carried the search, and what each of its levels received and sent."""
    plan = run.plan
    console.print(
        f"Tree: {run.workers} engines, fanout {plan.fanout}, up to {plan.leaf_engines} engines per leaf, "
        f"depth {plan.depth}, schedulers {plan.schedulers}"
    )
    table = Table("level", "schedulers", "messages in", "messages out", title="Messages per level")
    for level in run.levels:
        table.add_row(*(f"{level[key]:,}" for key in ("level", "schedulers", "messages_in", "messages_out")))
    console.print(table)


def print_times(console: Console, one: Run, many: Run, backend: str) -> None:
    """Both searches side by side."""
    table = Table("", "started in, s", "searched in, s", "against one process", title="Time, one BLAS thread each")
    table.add_row("one process", "-", f"{one.search_s:.2f}", "1.00x")
    started = f"{many.start_s:.2f}" if many.start_s else "-"
    ratio = f"{one.search_s / many.search_s:.2f}x"
    table.add_row(f"{backend}, {many.workers} workers", started, f"{many.search_s:.2f}", ratio)
    console.print(table)


def main() -> None:
    """Search twice, compare, and print what was found and what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, default=0, help="how many; 0 (the default) is one per core, at least 2")
    parser.add_argument("--backend", choices=["hiersched", "loky"], default="hiersched")
    options = parser.parse_args()
    engines = options.engines or max(2, len(os.sched_getaffinity(0)))

    console = Console()
    digits = load_digits(return_X_y=True)
    images, images_held_out, labels, labels_held_out = train_test_split(*digits, random_state=0, stratify=digits[1])
    console.print(f"{len(labels):,} images, {FITS // FOLDS} candidates x {FOLDS} folds = {FITS} fits")

    fit = fit_on_cluster if options.backend == "hiersched" else fit_on_loky
    many = with_progress(console, f"{options.backend}, {engines} workers", fit, images, labels, engines=engines)
    one = with_progress(console, "one process", fit_in_one_process, images, labels)
    assert_same_scores(one, many)
    console.print("Every score of every fold is identical in both runs.")

    print_result(console, many, images_held_out, labels_held_out)
    if many.levels:
        print_tree(console, many)
    print_times(console, one, many, options.backend)


if __name__ == "__main__":
    main()

"""joblib runs on the cluster: results, errors, nesting, and scikit-learn on top."""

from __future__ import annotations

from collections.abc import Iterator

import joblib
import pytest
from joblib import Parallel, delayed, parallel_config

from hiersched.client.balanced_view import LoadBalancedView
from hiersched.client.joblib_backend import HierschedBackend, register_joblib, register_joblib_backend, run_batch
from hiersched.errors import NoEngines, UserError
from tests.client.fake_session import FakeClient, FakeSession, ThreadedSession


class Client(FakeClient):
    """A client as the backend needs it."""

    def load_balanced_view(self) -> LoadBalancedView:
        return LoadBalancedView(self)


@pytest.fixture
def threaded() -> Iterator[Client]:
    """A cluster that works while joblib waits."""
    register_joblib()
    with ThreadedSession(engines=3) as session:
        yield Client(session)


def square_or_fail(x: int) -> int:
    if x == 13:
        raise ValueError("13 is unlucky")
    return x * x


def backend_inside() -> str:
    return type(joblib.parallel.get_active_backend()[0]).__name__


def nested_sum(x: int) -> int:
    return sum(Parallel(n_jobs=2)(delayed(square_or_fail)(y) for y in range(x)))


def test_results_come_in_order(threaded):
    with parallel_config(backend="hiersched", client=threaded):
        assert Parallel()(delayed(square_or_fail)(x) for x in range(10)) == [x * x for x in range(10)]
    assert threaded.session.sent


def test_batches_are_arguments_of_one_function(threaded):
    with parallel_config(backend="hiersched", client=threaded):
        Parallel()(delayed(square_or_fail)(x) for x in range(10))
    session = threaded.session
    assert {call.function for call in session.sent} == {session.packer.pack_call(run_batch, by_value=True).function}


def test_results_can_be_generated_unordered(threaded):
    with parallel_config(backend="hiersched", client=threaded):
        results = Parallel(return_as="generator_unordered")(delayed(square_or_fail)(x) for x in range(6))
        assert sorted(results) == [0, 1, 4, 9, 16, 25]


def test_a_client_can_be_registered(threaded):
    register_joblib(threaded)
    with parallel_config(backend="hiersched"):
        assert Parallel()(delayed(square_or_fail)(x) for x in range(4)) == [0, 1, 4, 9]


def test_a_view_can_be_registered(threaded):
    view = LoadBalancedView(threaded, targets=[0, 2])
    view.register_joblib_backend("two")
    with parallel_config(backend="two"):
        parallel = Parallel()
        assert parallel._backend._view is view
        assert parallel._effective_n_jobs() == 2
        assert parallel(delayed(square_or_fail)(x) for x in range(4)) == [0, 1, 4, 9]
    assert {terms.targets for terms in threaded.session.terms} == {(0, b"\x05")}


def test_a_backend_without_a_client_is_refused():
    register_joblib()
    with pytest.raises(UserError, match="register_joblib"):
        parallel_config(backend="hiersched")


def test_the_error_of_a_task_comes_through(threaded):
    with parallel_config(backend="hiersched", client=threaded), pytest.raises(ValueError, match="13 is unlucky"):
        Parallel()(delayed(square_or_fail)(x) for x in range(20))


def test_after_an_error_the_backend_goes_on(threaded):
    with parallel_config(backend="hiersched", client=threaded):
        with pytest.raises(ValueError, match="13 is unlucky"):
            Parallel()(delayed(square_or_fail)(x) for x in [13])
        assert Parallel()(delayed(square_or_fail)(x) for x in range(4)) == [0, 1, 4, 9]


def test_parallel_code_inside_a_task_runs_in_threads(threaded):
    with parallel_config(backend="hiersched", client=threaded):
        assert set(Parallel()(delayed(backend_inside)() for _ in range(3))) == {"ThreadingBackend"}
        assert Parallel()(delayed(nested_sum)(x) for x in range(4)) == [0, 0, 1, 5]


def test_jobs_are_as_many_as_engines():
    backend = HierschedBackend(Client(FakeSession(engines=5)))
    assert [backend.effective_n_jobs(n) for n in (-1, None, 2, 1)] == [5, 5, 5, 1]
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)
    with pytest.raises(NoEngines):
        HierschedBackend(Client(FakeSession(engines=0))).effective_n_jobs(-1)


def test_a_single_job_runs_here(threaded):
    with parallel_config(backend="hiersched", client=threaded):
        assert Parallel(n_jobs=1)(delayed(square_or_fail)(x) for x in range(4)) == [0, 1, 4, 9]
    assert threaded.session.sent == []


def test_aborting_withdraws_what_has_not_started():
    session = FakeSession()
    backend = HierschedBackend(Client(session))
    future = backend.submit(backend_inside)
    backend.abort_everything()
    assert future.cancelled()
    assert session.jobs == []
    assert backend.submit(backend_inside).result() == "LokyBackend"


def test_a_grid_search_runs_on_the_cluster(threaded):
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    data, target = load_iris(return_X_y=True)
    search = GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0, 10.0]}, cv=3)
    with parallel_config(backend="hiersched", client=threaded):
        search.fit(data, target)
    assert search.best_score_ > 0.9
    assert threaded.session.sent


def test_a_backend_may_find_the_cluster_by_itself(threaded, monkeypatch):
    made = []
    monkeypatch.setattr("hiersched.client.client.Client", lambda: made.append(threaded) or threaded)
    register_joblib_backend("found")
    assert made == []
    for _ in range(2):
        with parallel_config(backend="found"):
            assert Parallel()(delayed(square_or_fail)(x) for x in range(3)) == [0, 1, 4]
    assert made == [threaded]

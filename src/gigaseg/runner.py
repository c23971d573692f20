"""Where blocks are worked on: here, in threads or processes, or on a cluster; the results come in order."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from gigaseg.errors import ConfigError, one_line
from gigaseg.processes import end_with_parent

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL = ("threads", "processes")
"""Schedulers on this machine."""

_AHEAD = 4
"""Tasks a worker is given at a time: enough to keep it busy, few enough that their results fit into memory."""

_BEHIND = 2
"""Results that may wait to be consumed."""

_PATIENCE = 300
"""Seconds to wait for the first worker of a cluster, which may have to be started."""


class Runner:
    """Runs a function over tasks as Dask graphs; made by `open_runner`.

    Attributes
    ----------
    wave : tasks in a graph.
    options : what dask.compute needs to find its workers; None: no Dask, one task after the other.
    """

    def __init__(self, wave: int, options: Mapping[str, Any] | None) -> None:
        self.wave = wave
        self.options = options

    def map(
        self,
        function: Callable[[Shared, Task], Result],
        shared: Shared,
        tasks: Iterable[Task],
        at_once: int | None = None,
    ) -> Iterator[Result]:
        """Yield function(shared, task) for every task, in order, a wave of up to `at_once` in memory at a time."""
        if self.options is None:
            for task in tasks:
                yield function(shared, task)
            return
        from dask.base import compute
        from dask.delayed import delayed

        call, common = delayed(function, pure=False), delayed(shared, pure=False)
        rest = iter(tasks)
        while wave := list(itertools.islice(rest, min(self.wave, at_once or self.wave))):
            yield from compute(*[call(common, task) for task in wave], **self.options)

    def consume(self, function: Callable[[Task], object], tasks: Iterable[Task]) -> None:
        """Call function(task) for every task, in order, while the workers prepare the next ones.

        With one worker everything happens in turn.
        """
        if self.options is None:
            for task in tasks:
                function(task)
            return
        with ThreadPoolExecutor(1) as behind:
            waiting: deque[Future[object]] = deque()
            for task in tasks:
                if len(waiting) >= _BEHIND:
                    waiting.popleft().result()
                waiting.append(behind.submit(function, task))
            while waiting:
                waiting.popleft().result()


@contextmanager
def open_runner(workers: int, scheduler: str | None) -> Iterator[Runner]:
    """Open workers and close them again.

    Parameters
    ----------
    workers : threads or processes on this machine; a cluster has its own number.
    scheduler : "threads", "processes", or the address of a dask.distributed scheduler (tcp://HOST:PORT), whose workers
        need the same gigaseg and see the same files; None: DASK_SCHEDULER_ADDRESS, else "threads".

    Raises
    ------
    ConfigError
        The scheduler is none of these, or no cluster answers at the address.
    """
    scheduler = scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS") or "threads"
    if scheduler not in LOCAL and "://" not in scheduler:
        raise ConfigError(f"--scheduler is '{scheduler}', accepted: {', '.join(LOCAL)}, tcp://HOST:PORT")
    if workers < 1:
        raise ConfigError(f"--workers is {workers}, accepted: a whole number >= 1")
    if scheduler not in LOCAL:
        with _cluster(scheduler) as (client, size):
            yield Runner(_AHEAD * size, {"scheduler": client, "retries": 3})
    elif workers == 1:
        yield Runner(1, None)
    else:
        pool: Executor = (
            ThreadPoolExecutor(workers)
            if scheduler == "threads"
            else ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent)
        )
        with pool:
            yield Runner(_AHEAD * workers, {"scheduler": scheduler, "pool": pool, "optimize_graph": False})


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Any, int]]:
    """A client of the cluster at `address`, and the number of its threads."""
    from distributed import Client

    try:
        client = Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
        client.wait_for_workers(1, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(f"--scheduler is '{address}', where no Dask cluster answers ({one_line(error)})") from error
    with client:
        yield client, max(1, sum(client.nthreads().values()))  # type: ignore[no-untyped-call]

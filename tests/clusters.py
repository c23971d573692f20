"""A real Dask cluster that loses a worker."""

import os
import signal
import threading
import time
from contextlib import contextmanager


@contextmanager
def cluster_that_loses_a_worker():
    """Address of a cluster of two processes; the first is killed while it works on something, or the test fails."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        nanny = next(iter(cluster.workers.values()))
        victim = cluster.scheduler.workers[nanny.worker_address]
        done, killed = threading.Event(), threading.Event()

        def kill_in_the_middle():
            while not done.is_set():
                if victim.processing:
                    os.kill(nanny.pid, signal.SIGKILL)
                    killed.set()
                    return
                time.sleep(0.0005)

        killer = threading.Thread(target=kill_in_the_middle)
        killer.start()
        try:
            yield cluster.scheduler_address
        finally:
            done.set()
            killer.join()
    assert killed.is_set(), "no worker was at work"

"""The one door to Dask: an executor on a cluster, whose failures are sentences.

Workers need this package. What a task names, they must find at the same paths, so a cluster here is
machines that share a file system.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from dmclib.errors import DMCError

CONNECT_SECONDS = 10


@contextmanager
def executor(scheduler: str) -> Iterator:
    """A ``concurrent.futures`` executor on a Dask cluster; tasks left at the end are cancelled.

    Args:
        scheduler: its address, ``tcp://host:port``.

    Raises:
        DMCError: Dask is not installed, no scheduler answers, or the cluster fails later.
    """
    try:
        from distributed import Client  # the extra "cluster"
    except ImportError:
        raise DMCError(
            "A scheduler needs Dask, which is not installed here: pip install 'dmclib[cluster]'."
        ) from None
    try:
        # Asked without Dask first: a Client that fails to connect leaves its event loop behind.
        host, port = _host_and_port(scheduler)
        socket.create_connection((host, port), CONNECT_SECONDS).close()
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as problem:
        raise DMCError(
            f"No Dask scheduler answers at {scheduler!r} ({problem}). Check that it runs; the "
            "address looks like tcp://host:8786."
        ) from problem
    with client:
        tasks = client.get_executor(pure=False)  # what was answered once may have changed
        try:
            yield tasks
        except (DMCError, KeyboardInterrupt):
            raise
        except Exception as problem:
            raise DMCError(
                f"The cluster at {scheduler} failed ({type(problem).__name__}: {problem}). What is "
                "done stays; run it again to go on."
            ) from problem
        finally:
            tasks.shutdown(wait=False)  # cancels


def _host_and_port(scheduler: str) -> tuple[str, int]:
    parts = urlsplit(scheduler)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
        raise ValueError("not an address")
    return parts.hostname, parts.port


def worker() -> tuple[str, Callable[[], bool]]:
    """In a task: the worker's address, and a function that says whether the task is still wanted.

    It is not once whoever handed it in has cancelled it or has gone, however that went; Dask leaves
    a task that is under way to itself.
    """
    from distributed import get_worker

    here = get_worker()
    key = here.get_current_task()

    def wanted() -> bool:
        task = here.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    return here.address, wanted

"""Compute results in threads ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from thaw.system.process import available_cpus

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], max_pending: int) -> Generator[Result]:
    """Yield `read(item)` for each of `items`, in order, computed by as many threads as there are CPU cores.

    At most `max_pending` results wait for their use, so that they do not fill the memory. Threads help where `read`
    releases Python's lock, as Pillow does while it decodes and resizes.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(available_cpus()) as pool:
        futures: deque[Future[Result]] = deque(pool.submit(read, item) for item in islice(remaining, max_pending))
        try:
            while futures:
                result = futures.popleft().result()
                futures.extend(pool.submit(read, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in futures:
                future.cancel()

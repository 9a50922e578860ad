"""Results are computed ahead in threads, in order, and no more of them than may wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from thaw.system.read_ahead import read_ahead


def test_results_keep_their_order_whatever_finishes_first() -> None:
    def wait(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    assert list(read_ahead(wait, range(40), 7)) == list(range(40))
    assert list(read_ahead(wait, [], 7)) == []


def test_only_so_many_results_wait() -> None:
    num_taken, lock = 0, threading.Lock()

    def iter_items() -> Iterator[int]:
        nonlocal num_taken
        for number in range(50):
            with lock:
                num_taken += 1
            yield number

    results = read_ahead(lambda number: number, iter_items(), 5)
    for num_used in range(1, 20):
        next(results)
        assert num_taken <= num_used + 5


def test_an_error_is_raised_in_its_place_and_ends_the_work() -> None:
    started = []

    def fail_at_three(number: int) -> int:
        started.append(number)
        time.sleep(0.005)
        if number == 3:
            raise ValueError("three")
        return number

    results, used = read_ahead(fail_at_three, range(1000), 200), []
    with pytest.raises(ValueError, match="three"):
        used.extend(results)
    assert len(started) < 100, "what was waiting for a thread is cancelled"


def test_a_consumer_that_stops_ends_the_work() -> None:
    started = []

    def read(number: int) -> int:
        started.append(number)
        time.sleep(0.005)
        return number

    results = read_ahead(read, range(1000), 200)
    assert next(results) == 0
    results.close()
    assert len(started) < 100

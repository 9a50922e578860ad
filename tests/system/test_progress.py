"""Progress on a terminal, in a log file, and on screens that are not UTF-8."""

from __future__ import annotations

import io
import os
import pickle
import pty
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import TINY
from thaw.cli.train import launch
from thaw.system import progress
from thaw.system.progress import ProgressTask, build_line
from thaw.system.reporter import ConsoleReporter
from thaw.system.tables import measure_width, shorten_middle
from thaw.system.terminal import build_console, escape_output

CONTROL_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def run_on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], str]:
    """Return what a function writes to a terminal of 80 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def run(function: Callable[[], object]) -> str:
        leader, follower = pty.openpty()
        chunks: list[bytes] = []

        def read() -> None:
            try:
                while chunk := os.read(leader, 2**16):
                    chunks.append(chunk)
            except OSError:  # what Linux says at the end
                return

        reader = Thread(target=read)
        reader.start()
        with os.fdopen(follower, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            function()
        reader.join()
        os.close(leader)
        return b"".join(chunks).decode()

    return run


def find_redrawn_lines(output: str) -> list[str]:
    """Return every state of every line, without colors."""
    return [CONTROL_CODES.sub("", line) for line in re.split(r"[\r\n]+", output)]


@pytest.mark.long
def test_a_training_shows_one_line_with_epoch_batch_and_loss(
    run_on_terminal: Callable[[Callable[[], object]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.training.callbacks.progress.LOSS_INTERVAL_S", 0.0)
    monkeypatch.setattr(progress, "REFRESHES_PER_S", 200)  # so that a run of a second shows every kind of line
    output = run_on_terminal(lambda: launch([*TINY, f"output_dir={tmp_path}", f"data.cache_dir={tmp_path}"]))
    lines = find_redrawn_lines(output)
    assert any(re.fullmatch(r"decoding images  \d+/72  .*\d+%.* images/s  \d:\d\d left *", line) for line in lines)
    training = [line for line in lines if re.match(r"epoch [12]/2  ", line)]
    assert any(re.match(r"epoch 1/2  batch [1-5]/5  loss \d\.\d{3}  .*\d+%.*left", line) for line in training)
    assert any(line.startswith("epoch 2/2  ") for line in training)
    assert not re.search(r"v_num|epoch 0|Epoch", output)
    assert max(map(measure_width, training)) < 80
    finished = [line for line in lines if re.fullmatch(r"epoch [12]/2  all  loss .*, val .*  accuracy .* s", line)]
    assert len(finished) == 2, "the lines of epochs stand alone, not glued to a bar"


def test_a_terminal_shows_one_line_and_what_is_printed_stands_above_it(
    run_on_terminal: Callable[[Callable[[], object]], str],
) -> None:
    def decode() -> None:
        with escape_output(), ConsoleReporter().progress("decoding images", 2000) as advance:
            for _ in range(4):
                advance(500)
                print("a warning of a library")
                ConsoleReporter().write("bold\x1b[2J", "bold")

    output = run_on_terminal(decode)
    lines = find_redrawn_lines(output)
    assert lines.count("a warning of a library") == 4
    assert lines.count(r"bold\x1b[2J") == 4
    assert any(re.match(r"decoding images  [\d,]+/2,000  .*%", line) for line in lines)
    assert lines[-1] == "", "nothing remains at the end"


def test_a_log_file_gets_a_line_after_half_a_minute_and_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    with ConsoleReporter(stream).progress("decoding images", 1000) as advance:
        for _ in range(100):
            now += 1
            advance(10)
    assert stream.getvalue().splitlines() == [
        "decoding images: 300/1,000, 30%, 10 images/s, 1:10 left",
        "decoding images: 600/1,000, 60%, 10 images/s, 0:40 left",
        "decoding images: 900/1,000, 90%, 10 images/s, 0:10 left",
    ]


def test_the_remaining_time_counts_what_is_done_in_the_current_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    reporter = ConsoleReporter(io.StringIO())
    with reporter.progress("sweep", 4, "jobs", initial=1) as count_job:
        with reporter.progress("training", 100, is_main_part=True) as advance:
            now = 30.0
            advance(50)
            assert count_job.fraction == (1 + 0.5) / 4
            assert count_job.format_remaining() == "2:30 left", "the job that was done before took no time"
        count_job(1)
        assert count_job.fraction == 0.5


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_a_line_fits_the_terminal_and_keeps_its_numbers(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    task = ProgressTask("downloading a_very_long_name_of_an_archive_" * 3, 5 * 10**9, "B")
    task(10**9)
    stream = io.StringIO()
    console = build_console(stream)
    console.width = width
    console.print(build_line(task, width))
    (line,) = stream.getvalue().splitlines()
    assert measure_width(line) <= width
    assert ("━" in line) == (width >= 80), "the bar goes first"
    if width >= 80:
        assert "953.7/4,768.4 MiB" in line
        assert "20%" in line


def test_a_reporter_travels_to_the_process_of_a_job() -> None:
    assert pickle.loads(pickle.dumps(ConsoleReporter())).shows_progress


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_screen_that_is_not_utf_8_gets_ascii_for_what_it_lacks(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffers[0], encoding, errors="strict"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(buffers[1], encoding, errors="strict"))
    with escape_output():
        reporter = ConsoleReporter()
        reporter.write("0.9 ± 0.1 → 螞蟻 [v2] [/x] 🐜")
        reporter.draw(lambda console: console.print("━ 螞"))
        reporter.log("a … b")
        sys.stdout.flush()
        sys.stderr.flush()
    text = buffers[0].getvalue().decode(encoding)
    assert text.replace("±", "+-") == "0.9 +- 0.1 -> \\u879e\\u87fb [v2] [/x] \\U0001f41c\n- \\u879e\n"
    assert buffers[1].getvalue().decode(encoding) in ("a ~ b\n", "a … b\n")
    assert sys.stdout.errors == "strict"  # as it was


def test_the_middle_of_a_long_name_is_left_out() -> None:
    assert shorten_middle("ant", 3) == "ant"
    assert shorten_middle("vit_small_patch16_224.augreg_in21k", 21) == "vit_small_…greg_in21k"
    assert measure_width(shorten_middle("螞蟻" * 20, 21)) <= 21

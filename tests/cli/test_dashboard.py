"""`thaw dashboard` as a user types it: the real TensorBoard on a sweep, asked over HTTP and looked at in a browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY
from thaw.cli import dashboard
from thaw.cli.train import launch
from thaw.config.errors import UserError

ATTEMPTS = 4


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    assert launch(["-m", "strategy=fixed,scratch", *TINY, "trainer.epochs=1", f"output_dir={outputs}"]) == 0
    (folder,) = outputs.iterdir()
    return folder


@pytest.fixture(scope="module")
def address(sweep: Path) -> Iterator[str]:
    """The address that the command prints; it ends as Ctrl-C has it."""
    command = [sys.executable, "-m", "thaw.cli.main", "dashboard", str(sweep), "port=0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=listening_to_ctrl_c
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found
    until_read(found[0])
    yield found[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()


def listening_to_ctrl_c() -> None:
    """What a shell starts in the background, a whole suite for instance, ignores it, and so would the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def asked(address: str, route: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address.split('?')[0]}{route}", content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def until_read(address: str) -> None:
    """TensorBoard answers before it has read the files. Ended by the test's own time limit."""
    while len(asked(address, "data/plugin/scalars/tags")) < 2 or len(hparams(address).get("metricInfos", [])) < 5:
        time.sleep(0.1)


def hparams(address: str) -> Any:
    return asked(address, "experiment/defaultExperimentId/data/plugin/hparams/experiment", {})


def test_every_job_of_the_sweep_is_a_run_named_by_what_it_sets(address: str) -> None:
    names = asked(address, "data/runs")
    assert [name.split("/")[0] for name in names] == ["0_strategy=fixed", "1_strategy=scratch"]


def test_hparams_puts_the_keys_that_differ_and_the_final_metrics_first(address: str) -> None:
    experiment = hparams(address)
    differing = [one["name"] for one in experiment["hparamInfos"] if one["differs"]]
    assert differing == ["strategy.name", "strategy.phases", "strategy.init"]
    assert [one["name"] for one in experiment["hparamInfos"][:3]] == differing
    metrics = [one["name"]["tag"] for one in experiment["metricInfos"][:5]]
    assert metrics == [f"final/{one}" for one in
                       ("test_accuracy", "test_loss", "test_macro_accuracy", "val_accuracy", "val_loss")]  # fmt: skip


def test_the_layouts_of_all_runs_are_one(address: str) -> None:
    layout = asked(address, "data/plugin/custom_scalars/layout")
    charts = {one["title"]: [chart["multiline"]["tag"] for chart in one["chart"]] for one in layout["category"]}
    assert charts["strategies"] == [["val/accuracy"], ["val/loss"], ["train/loss"], ["train/accuracy"]]
    assert list(charts) == ["strategies", "learning rates", "norms"]


@pytest.mark.long  # beside the whole suite the page was twice without its cards; alone it never was
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page with")
def test_a_browser_draws_the_curves_of_both_strategies_each_in_a_colour(address: str, tmp_path: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,900", f"--user-data-dir={tmp_path}"]
    command = [shutil.which("chromium") or "", *options, "--virtual-time-budget=60000", "--dump-dom", address]
    dom = ""
    for _ in range(ATTEMPTS):  # the page's clock runs ahead of a server that other tests keep waiting
        dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        if "train/accuracy" in dom:
            break
    assert "train/accuracy" in dom
    assert "val/accuracy" in dom
    assert "data/samples" not in dom
    assert "0_strategy=fixed" in dom
    assert "1_strategy=scratch" in dom


def test_strategies_have_colours_where_there_are_several(sweep: Path) -> None:
    assert dashboard._build_view_parameters(sweep)["runColorGroup"] == f"regex:{dashboard.STRATEGY_PATTERN}"
    assert "runColorGroup" not in dashboard._build_view_parameters(next(sweep.glob("0_*")))


@pytest.mark.parametrize(
    ("path", "strategy"),
    [
        ("2026-11-24_17-36-20_sweep_5641bb/3_strategy=lp_ft,seed=1/tensorboard", "lp_ft"),
        ("2026-11-24_17-17-23_hymenoptera-tf_efficientnet_lite0-fixed_c76dff/tensorboard", "fixed"),
        ("2026-11-24_17-36-20_sweep_5641bb/3_seed=1/tensorboard", None),
    ],
)
def test_a_run_s_folder_says_its_strategy(path: str, strategy: str | None) -> None:
    found = re.search(dashboard.STRATEGY_PATTERN, path)
    assert (found[1] if found else None) == strategy


def fault(*arguments: str) -> tuple[str, str, str]:
    with pytest.raises(UserError) as caught:
        dashboard.run(arguments)
    (one,) = caught.value.problems
    return one.subject, one.got, one.fix


def test_a_folder_that_is_not_there_is_answered_with_the_nearest(sweep: Path) -> None:
    wrong = sweep.parent / sweep.name.replace("sweep", "swep")
    assert fault(str(wrong)) == (str(wrong), "no such folder", f"thaw dashboard {sweep}")


def test_a_folder_without_event_files_is_a_fault(tmp_path: Path) -> None:
    assert fault(str(tmp_path))[1] == "no event file in it; it is empty"


def test_of_a_port_that_is_taken_the_next_free_one_is_named(sweep: Path) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        subject, _, fix = fault(str(sweep), f"port={port}")
    assert subject == f"port={port}"
    assert int(fix.removeprefix("port=")) > port


@pytest.mark.parametrize("word", ["port=http", "port=70000", "prot=6007", "--port"])
def test_what_is_no_folder_and_no_port_is_a_fault(word: str) -> None:
    assert fault(word)[0] == word


def test_help_is_printed_before_anything_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard.run(["--help"]) == 0
    assert "thaw dashboard [DIR] [port=6006]" in capsys.readouterr().out

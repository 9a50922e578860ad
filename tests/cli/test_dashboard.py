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
from thaw.cli.dashboard import STRATEGY_PATTERN, _build_view_parameters
from thaw.cli.main import main
from thaw.cli.train import launch

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
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=restore_ctrl_c
    )
    assert process.stdout is not None
    match = re.search(r"http://\S+", process.stdout.readline())
    assert match
    wait_until_read(match[0])
    yield match[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()


def restore_ctrl_c() -> None:
    """What a shell starts in the background, a whole suite for instance, ignores it, and so would the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def request_json(address: str, route: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address.split('?')[0]}{route}", content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def wait_until_read(address: str) -> None:
    """TensorBoard answers before it has read the files. Ended by the test's own time limit."""
    while (
        len(request_json(address, "data/plugin/scalars/tags")) < 2
        or len(request_hparams(address).get("metricInfos", [])) < 5
    ):
        time.sleep(0.1)


def request_hparams(address: str) -> Any:
    return request_json(address, "experiment/defaultExperimentId/data/plugin/hparams/experiment", {})


def test_every_job_of_the_sweep_is_a_run_named_by_what_it_sets(address: str) -> None:
    names = request_json(address, "data/runs")
    assert [name.split("/")[0] for name in names] == ["0_strategy=fixed", "1_strategy=scratch"]


def test_hparams_begins_with_differing_keys_and_final_metrics(address: str) -> None:
    experiment = request_hparams(address)
    differing_keys = [entry["name"] for entry in experiment["hparamInfos"] if entry["differs"]]
    assert sorted(differing_keys) == ["strategy.init", "strategy.name", "strategy.phases"]
    assert [entry["name"] for entry in experiment["hparamInfos"][:3]] == differing_keys
    metrics = [entry["name"]["tag"] for entry in experiment["metricInfos"][:5]]
    assert metrics == [f"final/{entry}" for entry in
                       ("test_accuracy", "test_loss", "test_macro_accuracy", "val_accuracy", "val_loss")]  # fmt: skip


def test_all_runs_have_the_same_layout(address: str) -> None:
    layout = request_json(address, "data/plugin/custom_scalars/layout")
    charts = {entry["title"]: [chart["multiline"]["tag"] for chart in entry["chart"]] for entry in layout["category"]}
    assert charts["strategies"] == [["val/accuracy"], ["val/loss"], ["train/loss"], ["train/accuracy"]]
    assert list(charts) == ["strategies", "learning rates", "norms"]


@pytest.mark.long  # beside the whole suite the page was twice without its cards; alone it never was
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page with")
def test_a_browser_draws_the_curves_of_both_strategies_in_two_colors(address: str, tmp_path: Path) -> None:
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


def test_several_strategies_have_a_color_each(sweep: Path) -> None:
    assert _build_view_parameters(sweep)["runColorGroup"] == f"regex:{STRATEGY_PATTERN}"
    assert "runColorGroup" not in _build_view_parameters(next(sweep.glob("0_*")))


@pytest.mark.parametrize(
    ("path", "strategy"),
    [
        ("2026-11-24_17-36-20_sweep_5641bb/3_strategy=lp_ft,seed=1/tensorboard", "lp_ft"),
        ("2026-11-24_17-17-23_hymenoptera-tf_efficientnet_lite0-fixed_c76dff/tensorboard", "fixed"),
        ("2026-11-24_17-36-20_sweep_5641bb/3_seed=1/tensorboard", None),
    ],
)
def test_the_name_of_a_run_directory_contains_its_strategy(path: str, strategy: str | None) -> None:
    match = re.search(STRATEGY_PATTERN, path)
    assert (match[1] if match else None) == strategy


def run_wrong_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run `thaw dashboard ARGUMENTS`, which must end with status 2, and return its message."""
    assert main(["dashboard", *arguments]) == 2
    return capsys.readouterr().err


def test_a_missing_folder_is_answered_with_the_nearest(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = sweep.parent / sweep.name.replace("sweep", "swep")
    message = run_wrong_command(capsys, str(wrong))
    assert f"  {wrong}\n      got:   no such folder" in message
    assert f"fix:   thaw dashboard {sweep}\n" in message


def test_a_folder_without_event_files_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no event file in it; it is empty" in run_wrong_command(capsys, str(tmp_path))


def test_a_port_in_use_is_answered_with_the_next_free_one(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        message = run_wrong_command(capsys, str(sweep), f"port={port}")
    assert f"  --port {port}\n" in message
    assert int(message.rpartition("--port ")[2]) > port


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("port=http", "port=6006"),
        ("port=70000", "at most 65535"),
        ("prot=6007", "fix:   port=6007"),
        ("--port", "--port VALUE"),
        ("--prot=6007", "fix:   --port=6007"),
    ],
)
def test_a_wrong_option_is_a_problem(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in run_wrong_command(capsys, argument)

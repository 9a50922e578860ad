"""Jobs of a sweep in other processes equal single runs, whatever starts, stops or kills them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT, build_train_command, run_train_script
from tests.sweeps.runs import SMALL, are_equal, find_jobs, find_sweep
from thaw.config.compose import check_command, parse_command
from thaw.config.errors import UserError
from thaw.sweeps.launchers import count_gpus_per_job, count_parallel_jobs, register_resource_resolvers
from thaw.sweeps.monitor import monitor_jobs
from thaw.sweeps.record import Sweep, read_jobs, write_sweep
from thaw.system.process import available_cpus
from thaw.system.reporter import ConsoleReporter

NINE_JOBS = ("strategy=lp_ft,scratch,fixed", "seed=2,0,1")
TIMEOUT_S = 500  # each process imports for 10 s, on a machine that other tests use too
pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)
PAGE = (ROOT / "docs" / "launchers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def skip_without(extra: str) -> pytest.MarkDecorator:
    missing = find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.hydra_{extra}_launcher") is None
    return pytest.mark.skipif(missing, reason=f'needs pip install "thaw[{extra}]"')


def start_sweep(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        build_train_command("-m", *SMALL, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def send_signal_after_first_epoch(
    sweep: subprocess.Popen[str], outputs: Path, name: str, sent_signal: signal.Signals
) -> None:
    """Send a signal to the process of the job `name` of a running sweep after its first epoch."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and sweep.poll() is None:
        if any(len(file.read_text().splitlines()) > 1 for file in outputs.glob(f"*/*_{name}/history.csv")):
            os.kill(find_process(next(outputs.glob(f"*/*_{name}/output.log"))), sent_signal)
            return
        time.sleep(0.005)
    sweep.kill()
    pytest.fail(f"the job had no epoch: {sweep.communicate()}")


def find_process(output: Path) -> int:
    """Return the process that prints into the file `output`."""
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if link.readlink() == output.resolve():
                return int(link.parts[2])
        except OSError:  # it has ended, or belongs to another user
            continue
    raise LookupError(f"no process prints into {output}")


def find_differing_jobs(directory: Path, solo_runs: dict[str, Path], suffix: str = "") -> list[str]:
    jobs = find_jobs(directory)
    return [name for name in jobs if not are_equal(jobs[name], solo_runs[name + suffix])]


@pytest.mark.long
@skip_without("joblib")
def test_nine_parallel_jobs_equal_their_solo_runs_though_one_is_killed(
    solo_runs: dict[str, Path], tmp_path: Path
) -> None:
    sweep = start_sweep("launcher=joblib", "hydra.launcher.n_jobs=2", *NINE_JOBS, f"output_dir={tmp_path}")
    send_signal_after_first_epoch(sweep, tmp_path, "strategy=lp_ft,seed=0", signal.SIGKILL)
    _, log = sweep.communicate(timeout=TIMEOUT_S)
    directory = find_sweep(tmp_path)
    unfinished = [job for job in read_jobs(directory) if job.status != "done"]
    assert sweep.returncode == 1
    assert "job 2 running: strategy=lp_ft,seed=0" in log
    assert f"{len(unfinished)} of 9 jobs are not done. To run these alone: thaw resume {directory}" in log

    resumed = run_train_script(f"resume={directory}")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((directory / "1_strategy=lp_ft,seed=0" / "run.json").read_text())["resumed"]
    assert [job.status for job in read_jobs(directory)] == ["done"] * 9
    assert set(find_jobs(directory)) == set(solo_runs)
    assert find_differing_jobs(directory, solo_runs) == []
    assert "job 9 of 9 done: strategy=fixed,seed=1" in resumed.stderr
    assert "epoch 1/2" not in resumed.stdout
    assert "epoch 1/2" in (directory / "8_strategy=fixed,seed=1" / "output.log").read_text()
    recorded = json.loads((directory / "8_strategy=fixed,seed=1" / "run.json").read_text())["command"]
    assert recorded.startswith("python train.py ")  # without the folder of the program


@pytest.mark.long
@skip_without("submitit")
def test_a_preempted_job_is_queued_again_and_equals_its_solo_run(solo_runs: dict[str, Path], tmp_path: Path) -> None:
    sweep = start_sweep("launcher=submitit_local", "strategy=scratch,fixed", f"output_dir={tmp_path}")
    send_signal_after_first_epoch(sweep, tmp_path, "strategy=scratch", signal.SIGUSR2)
    _, log = sweep.communicate(timeout=TIMEOUT_S)
    directory = find_sweep(tmp_path)
    assert sweep.returncode == 0, log
    assert "job 1 of 2 interrupted: strategy=scratch" in log
    assert "job 1 of 2 done: strategy=scratch" in log
    assert len(json.loads((directory / "0_strategy=scratch" / "run.json").read_text())["resumed"]) == 1
    assert sorted(find_jobs(directory)) == ["strategy=fixed", "strategy=scratch"]
    assert find_differing_jobs(directory, solo_runs, ",seed=0") == []


@pytest.mark.long
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["launcher=joblib", "hydra.launcher.n_jobs=2"], marks=skip_without("joblib")),
        pytest.param(["launcher=ray", "hydra.launcher.ray.init.num_cpus=2"], marks=skip_without("ray")),
    ],
    ids=lambda arguments: arguments[0],
)
def test_jobs_in_other_processes_equal_their_solo_runs(
    launcher: list[str], solo_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the user's home
    process = run_train_script("-m", *SMALL, *launcher, "strategy=fixed,scratch", f"output_dir={tmp_path}")
    assert process.returncode == 0, process.stderr
    directory = find_sweep(tmp_path)
    assert [job.status for job in read_jobs(directory)] == ["done"] * 2
    assert find_differing_jobs(directory, solo_runs, ",seed=0") == []


@pytest.mark.long
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["launcher=submitit_local"], marks=skip_without("submitit")),
        pytest.param(["launcher=ray", "hydra.launcher.ray.init.num_cpus=2"], marks=skip_without("ray")),
    ],
    ids=lambda arguments: arguments[0],
)
def test_each_of_nine_jobs_equals_its_solo_run_to_the_last_bit(
    launcher: list[str], solo_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    process = run_train_script("-m", *SMALL, *launcher, *NINE_JOBS, f"output_dir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert set(find_jobs(find_sweep(tmp_path))) == set(solo_runs)
    assert find_differing_jobs(find_sweep(tmp_path), solo_runs) == []


WITHOUT_PLUGINS = """
import sys, hydra_plugins
hydra_plugins.__path__ = []
from thaw.cli.train import launch
status = launch(sys.argv[1:])
sys.exit(status if "torch" not in sys.modules else "torch was imported")
"""


@skip_without("joblib")
@pytest.mark.parametrize(
    ("override", "extra"),
    [
        ("launcher=joblib", "joblib"),
        ("launcher=submitit_slurm", "submitit"),
        ("hydra/launcher=ray", "ray"),
    ],
)
def test_a_launcher_that_is_not_installed_is_one_problem(override: str, extra: str, tmp_path: Path) -> None:
    arguments = [
        sys.executable,
        "-c",
        WITHOUT_PLUGINS,
        "-m",
        override,
        "seed=0,1",
        f"output_dir={tmp_path / 'outputs'}",
    ]
    process = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith(f"thaw: 1 problem in the command. Nothing was started.\n  {override}\n")
    assert f'pip install "thaw[{extra}]"' in process.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("override", ["launcher=basic", "hydra/launcher=basic"])
def test_a_launcher_without_a_sweep_is_a_problem(override: str) -> None:
    with pytest.raises(UserError, match=f"{override}\n.*a single run"):
        check_command(parse_command([override]))
    check_command(parse_command(["~launcher"]))


@pytest.mark.parametrize(("num_jobs", "has_warning"), [(1, False), (available_cpus() + 1, True)])
@skip_without("joblib")
def test_more_threads_than_cores_are_a_warning(
    num_jobs: int, has_warning: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "-m",
        "launcher=joblib",
        f"hydra.launcher.n_jobs={num_jobs}",
        "trainer.accelerator=cpu",
        "seed=range(100)",
    ]
    write_sweep(tmp_path, Sweep(tuple(arguments), 100))
    register_resource_resolvers()
    with monitor_jobs(check_command(parse_command(arguments)).config, tmp_path, ConsoleReporter()):
        pass
    log = capfd.readouterr().err
    assert ("wait for each other" in log) == has_warning
    assert "the same to the last bit with trainer.threads=1" in log


def test_resources_of_a_job_on_a_machine_without_a_gpu() -> None:
    assert count_parallel_jobs("cpu", "auto", 1) == available_cpus()
    assert count_parallel_jobs("cpu", 2, available_cpus()) == 1
    assert count_parallel_jobs("cpu", "auto", None) == 1
    assert count_parallel_jobs("cpu", "auto", 10 * available_cpus()) == 1
    assert [count_gpus_per_job("cpu", "auto"), count_gpus_per_job("gpu", "auto"), count_gpus_per_job("gpu", 2)] == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("python train.py")])
def test_a_sweep_of_the_page_is_a_valid_command(line: str) -> None:
    arguments = shlex.split(line)[2:]
    name = next(argument.partition("=")[2] for argument in arguments if argument.startswith("launcher="))
    if find_spec(f"hydra_plugins.hydra_{name.split('_')[0]}_launcher") is None:
        pytest.skip("its extra is not installed")
    check_command(parse_command(arguments))


def test_the_page_has_a_command_for_every_launcher() -> None:
    presets = {file.stem for file in (ROOT / "conf" / "launcher").glob("*.yaml")} - {"basic"}
    assert {name for name in presets if f"launcher={name} " in "\n".join(COMMANDS)} == presets
    extras = {line for line in COMMANDS if line.startswith("pip install")}
    assert extras == {f'pip install "thaw[{name}]"' for name in ("joblib", "submitit", "ray")}

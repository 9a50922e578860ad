"""Check the settings of Hydra that a command changes: directories, launcher and modes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from thaw.config.errors import Problem
from thaw.config.schema_dataset import check_path

# Settings that thaw decides itself, and what to do instead.
REFUSED_SETTINGS = {
    "hydra.job.chdir": "leave it out: paths are relative to the folder of the command",
    "hydra.mode": "leave it out: -m runs a sweep",
    "hydra.searchpath": "--config-dir DIR",
}


def find_settings_problems(config: DictConfig, lines: Sequence[str], multirun: bool) -> Iterator[Problem]:
    """Yield the problems of Hydra's section of the composed `config`; `lines` are the overrides of the command."""
    keys = {line.lstrip("+~").split("=", 1)[0]: line for line in lines}
    for key, fix in REFUSED_SETTINGS.items():
        if key in keys and not keys[key].endswith(("=null", "=false")):
            yield Problem(keys[key], "a setting that thaw does not have", fix=fix)
    yield from _check_directory(config, "sweep" if multirun else "run")
    if multirun:
        yield from _check_job_directories(config)
        yield from _check_launcher(config)


def _check_directory(config: DictConfig, mode: str) -> Iterator[Problem]:
    key, fix = f"hydra.{mode}.dir", "leave it out, or output_dir=DIR"
    try:
        directory = config.hydra[mode].dir
        check_path(str(directory))
    except (HydraException, OmegaConfBaseException, RecursionError, ValueError) as error:
        got = "a value that refers to itself" if "RecursionError" in repr(error) else str(error).splitlines()[0]
        yield Problem(f"the folder {key}", got, "a path", fix)
        return
    if not isinstance(directory, str) or not directory:
        yield Problem(f"{key}={directory}", "no path", "a path", fix)


def _check_job_directories(config: DictConfig) -> Iterator[Problem]:
    """Yield a problem if jobs would share a directory."""
    subfolder = OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[index,call-overload]
    if not any(
        part in str(subfolder) for part in ("${hydra.job.num}", "${hydra:job.num}", "thaw.job_name", "thaw.unique")
    ):
        yield Problem(
            f"hydra.sweep.subdir={subfolder}",
            "one folder for all jobs",
            "a name with ${hydra.job.num}, the number of the job",
            "leave it out",
        )


def _check_launcher(config: DictConfig) -> Iterator[Problem]:
    launcher = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    num_jobs = launcher.get("n_jobs") if isinstance(launcher, dict) else None
    is_interpolation = isinstance(num_jobs, str) and "${" in num_jobs
    if num_jobs is None or is_interpolation or (isinstance(num_jobs, int) and (num_jobs == -1 or 0 < num_jobs <= 1024)):
        return
    subject = f"hydra.launcher.n_jobs={num_jobs}"
    yield Problem(subject, "jobs at the same time", "1 to 1024, or -1 for one on each core", "hydra.launcher.n_jobs=1")


def expand_directory(config: DictConfig, mode: str) -> None:
    """Replace `~` in the directory of the run or of the sweep (`mode`) by the home folder."""
    directory = str(Path(config.hydra[mode].dir).expanduser())
    with read_write(config), open_dict(config):
        config.hydra[mode].dir = directory

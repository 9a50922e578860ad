"""From a command line to runs: check everything, then let Hydra start one job or many. Imports no torch by itself."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from thaw.config.command import CONFIG_NAME, Command, checked, config_folder, parsed, register_resolvers
from thaw.config.faults import Fault, UserFault
from thaw.config.validation import validated
from thaw.training.nodes import followed
from thaw.training.run import check_resumable

DONE, FAILED, FAULT, INTERRUPTED = 0, 1, 2, 130


def launch(arguments: Sequence[str]) -> int:
    """Runs what `arguments` ask for and returns the exit status: 0 done, 1 a job of a sweep failed, 2 the user must
    change something, 130 interrupted. A bug of ours leaves with its traceback."""
    try:
        if (status := followed()) is not None:
            return status
        command = parsed(arguments)
        if resumed := _resumed_run(command):
            return _resume(resumed)
        return _start(checked(command))
    except UserFault as fault:
        print(f"thaw: {fault}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        return INTERRUPTED


def _resumed_run(command: Command) -> Path | None:
    named = [line.split("=", 1)[1] for line in command.overrides if line.lstrip("+").startswith("resume=")]
    others = [line for line in command.overrides if not line.lstrip("+").startswith("resume=")]
    if not named or named == ["null"]:
        return None
    if others or command.multirun:
        got = " ".join(others) or "-m"
        raise UserFault(
            "a resumed run goes on as it was.", [Fault("resume=DIR and other settings", got, "resume=DIR alone")]
        )
    return Path(named[0]).expanduser()


def _resume(directory: Path) -> int:
    check_resumable(directory)  # before torch is imported
    from thaw.training.train import resume

    return resume(directory)


def _start(arguments: Sequence[str]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # a traceback that we show is a bug of ours, wanted whole
    # Else torch warns of a setting that strategies of several phases need on several devices. It is read at the import.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    register_resolvers()
    statuses: list[int] = []

    def job(config: DictConfig) -> None:
        statuses.append(_status_of_job(config))
        if statuses[-1] == INTERRUPTED:
            raise KeyboardInterrupt  # ends a sweep too

    sys.argv[1:] = list(arguments)
    hydra.main(config_path=str(config_folder()), config_name=CONFIG_NAME, version_base="1.3")(job)()
    return _status(statuses)


def _status_of_job(config: DictConfig) -> int:
    """A job that fails leaves the others of its sweep to go on."""
    try:
        return _train(config)
    except Exception:
        traceback.print_exc()
        return FAILED


def _train(config: DictConfig) -> int:
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    recipe = validated({str(key): value for key, value in values.items()})
    from thaw.training.train import start

    return start(recipe, Path(HydraConfig.get().runtime.output_dir))


def _status(statuses: Sequence[int]) -> int:
    failed = [status for status in statuses if status != DONE]
    if len(statuses) > 1 and failed:
        print(f"thaw: {len(failed)} of {len(statuses)} jobs failed", file=sys.stderr)
        return FAILED
    return failed[0] if failed else DONE

"""From a command line to runs: check everything, then start one or many. Imports no torch by itself."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig

from thaw.commands.resume import resume, set_environment
from thaw.config.command import CONFIG_NAME, Checked, Command, checked, config_folder, parsed
from thaw.config.faults import DONE, FAILED, FAULT, INTERRUPTED, Fault, UserFault
from thaw.training.launched import is_further, launched


def launch(arguments: Sequence[str]) -> int:
    """Runs what `arguments` ask for and returns the exit status: 0 done, 1 a job of a sweep failed, 2 the user must
    change something, 130 interrupted. A bug of ours leaves with its traceback."""
    try:
        if is_further():
            return _followed()
        if (here := launched()) and here.world > 1:
            from thaw.training.nodes import lead

            lead()
        command = parsed(arguments)
        if begun := _resumed(command):
            return resume(begun)
        return _start(command)
    except UserFault as fault:
        print(f"thaw: {fault}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        return INTERRUPTED


def _followed() -> int:
    """Of a further process: trains along with the first until that ends."""
    from thaw.training.companion import follow

    while (status := follow()) is not None:
        if status == INTERRUPTED:
            return status
    return DONE


def _resumed(command: Command) -> Path | None:
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


def _start(command: Command) -> int:
    set_environment()
    if command.informs:
        return _inform(checked(command).arguments)
    if command.multirun:
        from thaw.sweep.sweeping import sweep

        return sweep(command)
    return _run(checked(command))


def _inform(arguments: Sequence[str]) -> int:
    """Help, or a printed config, by Hydra."""
    from thaw.sweep.share import register_shares

    register_shares()
    sys.argv[1:] = list(arguments)
    hydra.main(config_path=str(config_folder()), config_name=CONFIG_NAME, version_base="1.3")(lambda _: None)()
    return 0


def _run(made: Checked) -> int:
    recipe = made.recipe()

    def job(config: DictConfig) -> int:
        from thaw.training.start import start

        return start(recipe, Path(HydraConfig.get().runtime.output_dir))

    context = HydraContext(config_loader=made.loader, callbacks=Callbacks(made.config))
    try:
        status: int = run_job(job, made.config, "hydra.run.dir", None, context).return_value
    except Exception:
        traceback.print_exc()
        return FAILED
    return status

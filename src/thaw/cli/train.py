"""From a command line to runs: check everything, then start one or many. Imports no torch by itself."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig

from thaw.cli.resume import get_command_line, resume, set_environment
from thaw.config.compose import CONFIG_NAME, CheckedCommand, Command, check_command, get_config_folder, parse_command
from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_USER_ERROR, Problem, UserError
from thaw.system.launcher import detect_launcher, is_worker
from thaw.system.reporter import ConsoleReporter, Reporter


def launch(arguments: Sequence[str]) -> int:
    """Runs what `arguments` ask for and returns the exit status: 0 done, 1 a job of a sweep failed, 2 the user must
    change something, 130 interrupted. A bug of ours leaves with its traceback."""
    try:
        if is_worker():
            return _run_as_worker()
        if (launched_process := detect_launcher()) and launched_process.world_size > 1:
            from thaw.training.distributed.rendezvous import start_leader

            start_leader()
        command = parse_command(arguments)
        if resume_path := _get_resume_path(command):
            return resume(resume_path)
        return _start(command)
    except UserError as error:
        print(f"thaw: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run_as_worker() -> int:
    """Of a further process: trains along with the first until that ends."""
    from thaw.training.worker import run_worker

    while (status := run_worker()) is not None:
        if status == EXIT_INTERRUPTED:
            return status
    return EXIT_SUCCESS


def _get_resume_path(command: Command) -> Path | None:
    resume_values = [line.split("=", 1)[1] for line in command.overrides if line.lstrip("+").startswith("resume=")]
    other_overrides = [line for line in command.overrides if not line.lstrip("+").startswith("resume=")]
    if not resume_values or resume_values == ["null"]:
        return None
    if other_overrides or command.multirun:
        got = " ".join(other_overrides) or "-m"
        raise UserError(
            "a resumed run goes on as it was.", [Problem("resume=DIR and other settings", got, "resume=DIR alone")]
        )
    return Path(resume_values[0]).expanduser()


def _start(command: Command) -> int:
    set_environment()
    if command.shows_help:
        return _print_help(check_command(command).arguments)
    if command.multirun:
        from thaw.sweep.sweep import sweep

        result = sweep(command, command_line=get_command_line(), reporter=ConsoleReporter())
        return EXIT_FAILURE if result.unfinished_jobs else EXIT_SUCCESS
    return _run(check_command(command))


def _print_help(arguments: Sequence[str]) -> int:
    """Help, or a printed config, by Hydra."""
    from thaw.sweep.resources import register_resource_resolvers

    register_resource_resolvers()
    sys.argv[1:] = list(arguments)
    hydra.main(config_path=str(get_config_folder()), config_name=CONFIG_NAME, version_base="1.3")(lambda _: None)()
    return 0


def report_training(train: Callable[[Reporter], object], directory: Path) -> int:
    """Call `train` with a console reporter; print its error and return the exit status."""
    from thaw.system.process import Interrupted

    try:
        train(ConsoleReporter())
    except UserError as error:
        print(f"thaw: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Interrupted:
        print(f"\ninterrupted; continue with: python train.py resume={directory}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_SUCCESS


def _run(checked_command: CheckedCommand) -> int:
    recipe = checked_command.build_recipe()

    def run_training(config: DictConfig) -> int:
        from thaw.training.start import start_run

        directory = Path(HydraConfig.get().runtime.output_dir)
        return report_training(
            lambda reporter: start_run(recipe, directory, command=get_command_line(), reporter=reporter), directory
        )

    context = HydraContext(config_loader=checked_command.config_loader, callbacks=Callbacks(checked_command.config))
    try:
        status: int = run_job(run_training, checked_command.config, "hydra.run.dir", None, context).return_value
    except Exception:
        traceback.print_exc()
        return EXIT_FAILURE
    return status

"""From a command line to runs: check everything, then start one or many. Imports no torch by itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from thaw.cli.arguments import run_command
from thaw.cli.command_words import complete_override
from thaw.cli.grammar import ANY_RECIPE_KEY, HELP_FLAGS, Verb, VerbCommand
from thaw.config.catalog import get_config_folder, list_group_choices
from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS, Problem, UserError

if TYPE_CHECKING:
    from thaw.config.compose import CheckedCommand, Command

TRUST_FLAG = "--trust"  # beside resume=DIR, as for thaw resume
HYDRA_FLAGS = ("--multirun", "--cfg", "--resolve", "--package", "--info", "--config-name", "--config-dir", "--help")
VERB = Verb(
    "train",
    summary="train a recipe or a sweep, as python train.py does",
    examples=("python train.py strategy=fixed", "python train.py -m strategy=scratch,fixed,finetune seed=0,1,2"),
    recipe_keys=ANY_RECIPE_KEY,
)


class TrainCommand(VerbCommand):
    """`thaw train`: takes the words of train.py, Hydra's options among them, and passes them on."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep all words as they are."""
        ctx.params["arguments"] = args
        return []

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete Hydra's options, groups, choices and keys."""
        words = HYDRA_FLAGS if incomplete.startswith("-") else [*complete_override(incomplete), "resume="]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def launch(arguments: Sequence[str]) -> int:
    """Run what `arguments` ask for and return the exit status: 0 done, 1 a job of a sweep failed or thaw has a bug,
    2 the user must change something, 130 interrupted."""
    return run_command(lambda: run_training(arguments))


def run_training(arguments: Sequence[str]) -> int:
    """Train what `arguments`, the words after train.py, ask for and return the exit status.

    Raises:
        UserError: with all problems of the command.
        KeyboardInterrupt: if the training was interrupted.
    """
    if tuple(arguments) in {(help_flag,) for help_flag in HELP_FLAGS}:
        print(format_help())
        return EXIT_SUCCESS
    from thaw.cli.resume import resume_directory
    from thaw.config.compose import parse_command
    from thaw.system.launcher import detect_launcher, is_worker

    if is_worker():
        return _run_as_worker()
    if (launched_process := detect_launcher()) and launched_process.world_size > 1:
        from thaw.training.distributed.rendezvous import start_leader

        start_leader()
    command = parse_command([word for word in arguments if word != TRUST_FLAG])
    if resume_path := _get_resume_path(command):
        overrides = [line for line in command.overrides if not _is_resume_override(line)]
        return resume_directory(resume_path, overrides, TRUST_FLAG in arguments)
    return _start(command)


train = TrainCommand(VERB, run_training)


def format_help() -> str:
    """Return the help of train.py: hydra.help.template of conf/config.yaml with all groups and choices, as Hydra would
    print it after composing a configuration, which takes half a second."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = (get_config_folder() / "config.yaml").read_text(encoding="utf-8")
    template: str = yaml.load(text, loader)["hydra"]["help"]["template"]
    choices = {group: names for group, names in list_group_choices().items() if group != "hydra"}
    lines = [f"{group}: {', '.join(names)}\n" for group, names in choices.items()]
    return template.replace("$APP_CONFIG_GROUPS", "".join(lines))


def _run_as_worker() -> int:
    """Train along with the first process until it ends."""
    from thaw.training.worker import run_worker

    while (status := run_worker()) is not None:
        if status == EXIT_INTERRUPTED:
            return status
    return EXIT_SUCCESS


def _get_resume_path(command: Command) -> Path | None:
    from thaw.config.literal_paths import read_path

    resume_overrides = [line for line in command.overrides if _is_resume_override(line)]
    if not resume_overrides or (path := read_path(resume_overrides[-1])) is None:
        return None
    if command.multirun:
        raise UserError("a resumed run keeps its recipe.", [Problem("resume=DIR and -m", fix="leave -m out")])
    return Path(path).expanduser()


def _is_resume_override(line: str) -> bool:
    return line.lstrip("+").startswith("resume=")


def _start(command: Command) -> int:
    from thaw.cli.resume import get_command_line, set_environment
    from thaw.config.compose import check_command
    from thaw.system.reporter import ConsoleReporter

    set_environment()
    if command.shows_help:
        return _print_help(check_command(command).arguments)
    if command.multirun:
        from thaw.sweeps.sweep import sweep
        from thaw.system.reporter import ConsoleReporter

        result = sweep(command, command_line=get_command_line(), reporter=ConsoleReporter())
        return EXIT_FAILURE if result.unfinished_jobs else EXIT_SUCCESS
    return _run(check_command(command))


def _print_help(arguments: Sequence[str]) -> int:
    """Print help about overrides, or a configuration, with Hydra."""
    import hydra

    from thaw.config.compose import CONFIG_NAME
    from thaw.sweeps.launchers import register_resource_resolvers

    register_resource_resolvers()
    sys.argv[1:] = list(arguments)
    hydra.main(config_path=str(get_config_folder()), config_name=CONFIG_NAME, version_base="1.3")(lambda _: None)()
    return EXIT_SUCCESS


def _run(checked_command: CheckedCommand) -> int:
    from hydra._internal.callbacks import Callbacks
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import run_job
    from hydra.types import HydraContext
    from omegaconf import DictConfig, open_dict, read_write

    from thaw.cli.resume import get_command_line, report_training
    from thaw.runs.lifecycle import create_directory

    recipe = checked_command.build_recipe()

    def start_training(config: DictConfig) -> int:
        from thaw.training.start import start_run

        directory, command = Path(HydraConfig.get().runtime.output_dir), get_command_line()
        return report_training(
            lambda reporter: start_run(recipe, directory, command=command, reporter=reporter), directory
        )

    config = checked_command.config
    directory = Path(config.hydra.run.dir).expanduser()
    with read_write(config), open_dict(config):
        config.hydra.run.dir = str(directory)
    context = HydraContext(config_loader=checked_command.config_loader, callbacks=Callbacks(config))
    with create_directory(directory):
        status: int = run_job(start_training, config, "hydra.run.dir", None, context).return_value
    return status

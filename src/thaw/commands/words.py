"""Options of a command among its other words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from thaw.config.faults import Problem, UserError, find_closest_name, format_names

CONFIG_DIR_OPTION = "--config-dir"  # a folder of presets of one's own, as train.py takes it


def get_config_dir_arguments(options: Mapping[str, str]) -> list[str]:
    """The part of `options` that composing a recipe needs."""
    return [CONFIG_DIR_OPTION, options[CONFIG_DIR_OPTION]] if CONFIG_DIR_OPTION in options else []


def parse_arguments(
    arguments: Sequence[str], value_options: Collection[str], flags: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """Options by name, flags with an empty value, and what is left of `arguments`; a lone `-` is no option, and nothing
    behind `--` is.

    Raises:
        UserFault: naming every unknown option, second one, and missing value.
    """
    options: dict[str, str] = {}
    positionals, problems, remaining_arguments = list[str](), list[Problem](), list(arguments)
    known_options = [*value_options, *flags]
    while remaining_arguments:
        argument = remaining_arguments.pop(0)
        name, separator, value = argument.partition("=")
        if argument == "--":
            positionals, remaining_arguments = [*positionals, *remaining_arguments], []
        elif not argument.startswith("-") or argument == "-":
            positionals.append(argument)
        elif name not in known_options or (name in flags and separator):
            closest = find_closest_name(name, known_options)
            suffix = f"{separator}{value}" or (" VALUE" if closest in value_options else "")
            problems.append(
                Problem(
                    argument, "no such option", format_names(known_options), f"{closest}{suffix}" if closest else ""
                )
            )
        elif name in options:
            problems.append(Problem(argument, f"a second {name}", "one", "leave one out"))
        elif name in flags:
            options[name] = ""
        else:
            options[name] = (
                value
                if separator
                else remaining_arguments.pop(0)
                if remaining_arguments and remaining_arguments[0][:2] != "--"
                else ""
            )
            problems.extend([] if options[name] else [Problem(argument, "no value", f"{name} VALUE")])
    if problems:
        raise UserError("nothing was started.", problems)
    return options, positionals

"""Options of a command among its other words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from thaw.config.faults import Fault, UserFault, listing, nearest

CONFIG_DIR = "--config-dir"  # a folder of presets of one's own, as train.py takes it


def own_presets(options: Mapping[str, str]) -> list[str]:
    """The part of `options` that composing a recipe needs."""
    return [CONFIG_DIR, options[CONFIG_DIR]] if CONFIG_DIR in options else []


def sorted_words(
    arguments: Sequence[str], valued: Collection[str], flags: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """Options by name, flags with an empty value, and what is left of `arguments`; a lone `-` is no option, and nothing
    behind `--` is.

    Raises:
        UserFault: naming every unknown option, second one, and missing value.
    """
    options: dict[str, str] = {}
    rest, faults, words = list[str](), list[Fault](), list(arguments)
    known = [*valued, *flags]
    while words:
        word = words.pop(0)
        name, is_joined, value = word.partition("=")
        if word == "--":
            rest, words = [*rest, *words], []
        elif not word.startswith("-") or word == "-":
            rest.append(word)
        elif name not in known or (name in flags and is_joined):
            closest = nearest(name, known)
            follows = f"{is_joined}{value}" or (" VALUE" if closest in valued else "")
            faults.append(Fault(word, "no such option", listing(known), f"{closest}{follows}" if closest else ""))
        elif name in options:
            faults.append(Fault(word, f"a second {name}", "one", "leave one out"))
        elif name in flags:
            options[name] = ""
        else:
            options[name] = value if is_joined else words.pop(0) if words and words[0][:2] != "--" else ""
            faults.extend([] if options[name] else [Fault(word, "no value", f"{name} VALUE")])
    if faults:
        raise UserFault("nothing was started.", faults)
    return options, rest

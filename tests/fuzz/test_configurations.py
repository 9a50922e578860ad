"""Random command lines and presets: a valid recipe, or a UserError whose fixes are accepted; soon, and no traceback."""

from __future__ import annotations

import math
import random
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from thaw.config.catalog import get_config_folder, list_group_choices
from thaw.config.compose import check_command, parse_command
from thaw.config.errors import Problem, UserError
from thaw.config.guesses import CHOICE_GUESSES, KEY_GUESSES
from thaw.config.reference import DICT_KEY, describe_keys
from thaw.config.schema import Recipe
from thaw.config.validation import validate_recipe

NUM_COMMANDS, NUM_PRESETS, MAX_CPU_S = 300, 100, 10.0
CHOICES = list_group_choices()
KEYS = sorted({row.key.replace(DICT_KEY, "all") for row in describe_keys()})
HYDRA_KEYS = [
    *[
        "hydra.run.dir",
        "hydra.sweep.dir",
        "hydra.sweep.subdir",
        "hydra.job.chdir",
        "hydra.mode",
        "hydra.sweeper.params",
    ],
    *["hydra.launcher.n_jobs", "hydra.sweeper.trials", "hydra.searchpath", "hydra.output_subdir", "hydra/launcher"],
    *["hydra.verbose", "hydra", "hydra.run", "hydra.nothing", "hydra.job.name", "hydra.callbacks"],
]
VALUES = [
    *["0", "1", "-1", "2", "5", "10", "0.5", "1.0", "1e-3", "-0.1", "1e400", "inf", "-inf", "nan", "1_000", "0x10"],
    *["9" * 19, "9" * 400, "null", "true", "false", "yes", "off", "none", "None", "auto", "default", "cpu", "gpu"],
    *[
        "''",
        '""',
        "' '",
        "'a b'",
        '"a,b"',
        "a b",
        "a,b",
        "a=b",
        "x y (z), w=1",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "[]",
        "{}",
    ],
    *["[1,2]", "[a,[b,{c: d}]]", "{a: 1}", "{a: {b: [1, null]}}", "{1: 2}", "{kind: ema}", "{kind: swa, start: 0.9}"],
    *["${seed}", "${nothing}", "${", "${oc.env:HOME}", "${hydra:run.dir}", "???", "\\", "\\'", "'", '"', "~", "~/x"],
    *[
        "~no_such_user/x",
        "/",
        ".",
        "..",
        "/dev/null",
        "/tmp",
        "caf\u00e9",
        "\u4e2d\u6587",
        "\u202e",
        "\x1b[2J",
        "\n",
        "\t",
    ],
    *[
        "e\u0301",
        "\ud800",
        "x" * 300,
        "a/" * 3000,
        "%s",
        "$HOME",
        "`id`",
        ";",
        "&",
        "#",
        "!",
        "*",
        "?",
        "@",
        "a:b",
        ":",
    ],
]
SWEEPS = [
    *["0,1", "1,two", "range(0,5)", "range(0,0)", "range(3,1)", "range(0,10**9)", "range(0,1000000000)", "choice(1,2)"],
    *["range(0,1,0)", "range(0,1,1e-9)", "interval(0,1)", "interval(1,inf)", "tag(log,interval(1e-5,1))", "glob(*)"],
    *[
        "glob(z*)",
        "shuffle(range(0,4))",
        "sort(3,1,2)",
        "int(interval(1,5))",
        "null,1",
        "[1],[2]",
        "{a: 1},null",
        "inf,1",
    ],
]
PLACEHOLDERS = re.compile(r"\b(VALUE|DIR|NAME|HEX|LOW|HIGH)\b|\.\.\.|, or |^~|;")


def generate_key(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(KEYS)
    if kind < 0.6:
        return rng.choice(sorted(CHOICES))
    if kind < 0.75:
        return rng.choice(sorted(KEY_GUESSES))
    if kind < 0.83:
        return rng.choice(HYDRA_KEYS)
    key = list(rng.choice(KEYS))
    for _ in range(rng.randint(1, 2)):
        index = rng.randrange(len(key))
        key[index : index + rng.randint(0, 1)] = rng.choice(["", "x", ".", key[index] * 2, "_", "/", "@", " "])
    return "".join(key)


def generate_value(rng: random.Random, key: str, is_sweep: bool) -> str:
    if key in CHOICES and rng.random() < 0.7:
        names = [*CHOICES[key], *CHOICE_GUESSES.get(key, {})]
        return ",".join(rng.sample(names, 2)) if is_sweep else rng.choice(names)
    if is_sweep and rng.random() < 0.6:
        return rng.choice(SWEEPS)
    return rng.choice(VALUES)


def generate_command(rng: random.Random) -> list[str]:
    is_sweep = rng.random() < 0.25
    lines: list[str] = ["-m"] if is_sweep else []
    for _ in range(rng.randint(1, 4)):
        key = generate_key(rng)
        form = rng.random()
        if form < 0.06:
            lines.append(
                rng.choice([f"~{key}", f"~{key}={rng.choice(VALUES)}", key, f"{key}=", "=", rng.choice(VALUES)])
            )
        elif form < 0.1:
            lines += [f"--{key}", rng.choice(VALUES)]
        else:
            prefix = rng.choice(["", "", "", "", "+", "++"])
            lines.append(f"{prefix}{key}={generate_value(rng, key, is_sweep)}")
    return lines


def check(arguments: Sequence[str]) -> Recipe | UserError | None:
    """Return the recipe of a run, None for a valid sweep, or the error."""
    result: Recipe | UserError | None = None
    start = time.process_time()
    try:
        command = check_command(parse_command(arguments))
        result = command.build_recipe() if command.num_jobs == 1 and "-m" not in arguments else None
    except UserError as error:
        result = error
    assert time.process_time() - start < MAX_CPU_S
    assert not isinstance(result, UserError) or result.problems
    return result


def iter_numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from iter_numbers(entry)
    elif isinstance(value, float):
        yield value


def check_accepted(recipe: Recipe) -> None:
    """A recipe that is accepted can be written and read again, and all of its numbers are finite."""
    assert all(map(math.isfinite, iter_numbers(recipe.to_dict())))
    assert validate_recipe(recipe.to_dict()) == recipe


def check_fix(arguments: Sequence[str], problem: Problem) -> None:
    """A fix that can be typed as it stands is not what was typed, and is not refused itself."""
    fix = problem.fix
    assert fix != problem.subject
    if not fix or PLACEHOLDERS.search(fix):
        return
    try:
        words = shlex.split(fix)
    except ValueError:
        return
    targets = [word for word in words if word != "-m"]
    if not targets or not all(re.match(r"[+]*[a-z_][\w./]*=", word) for word in targets):
        return  # advice
    assert not set(targets) <= set(arguments), (arguments, fix)
    keys = {word.lstrip("+").partition("=")[0] for word in targets}
    subject_key = problem.subject.lstrip("+~").partition("=")[0].partition(":")[0]
    dropped = re.compile("|".join(rf"[+~]*{re.escape(key)}([.@=].*)?" for key in (*keys, subject_key)), re.DOTALL)
    kept = [line for line in arguments if line == "-m" or ("=" in line and not dropped.fullmatch(line))]
    result = check([*words, *(line for line in kept if line not in words)])
    for other in result.problems if isinstance(result, UserError) else ():
        assert other.subject != problem.subject or other.got != problem.got, (arguments, fix, str(other))
        assert not any(other.subject.startswith(f"{word}: no such") for word in words), (arguments, fix, str(other))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NUM_COMMANDS))
def test_a_random_command_is_a_recipe_or_gets_fixes_that_are_accepted(seed: int) -> None:
    arguments = generate_command(random.Random(seed))
    result = check(arguments)
    if isinstance(result, Recipe):
        check_accepted(result)
    for problem in result.problems if isinstance(result, UserError) else ():
        check_fix(arguments, problem)


def generate_preset(rng: random.Random) -> tuple[str, bytes]:
    """Return the group and the content of a preset of thaw with a few changes."""
    group = rng.choice([name for name in sorted(CHOICES) if name not in ("launcher", "sweep")])
    lines = (get_config_folder() / group / f"{rng.choice(CHOICES[group])}.yaml").read_text("utf-8").splitlines()
    inserted_lines = [
        *[
            "\tname: x",
            "name: x",
            "name: y",
            "defaults: [mine]",
            "defaults: mine",
            "defaults: [nothing]",
            "defaults: []",
        ],
        *[
            "x: !!python/object/apply:os.abort []",
            "x: !!binary aGk=",
            "x: &a [*a]",
            "x: *b",
            "x: [",
            "}",
            "- a",
            "? [a]",
        ],
        *[
            "x: 1e400",
            "x: .inf",
            "x: .nan",
            "on: off",
            "null: null",
            "1: 2",
            "=: =",
            "<<: {a: 1}",
            "---",
            "...",
            "%TAG",
        ],
        *["x: ${x}", "x: ${seed}", "defaults: [{override /optimizer: sgd}]", "# @package _global_", "x: 2020-01-01"],
        *["x: " + "[" * 2000, "x: '", "x: \x00", "x: \u202e", "defaults: [off]", "defaults: [[a]]", "defaults: [{}]"],
    ]
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(len(lines) + 1)
        change = rng.random()
        if change < 0.5:
            lines.insert(index, rng.choice(inserted_lines))
        elif change < 0.7 and index < len(lines):
            del lines[index]
        elif index < len(lines):
            lines[index] = re.sub(r":.*", lambda _: f": {rng.choice(VALUES)}", lines[index], count=1)
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        content = rng.choice(
            [b"", content.decode("utf-8", "replace").encode("utf-16"), content + b"\xff", content[: len(content) // 2]]
        )
    return group, content


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NUM_PRESETS))
def test_a_random_preset_is_a_recipe_or_gets_a_message(seed: int, tmp_path: Path) -> None:
    group, content = generate_preset(random.Random(seed))
    file = tmp_path / group / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(content)
    result = check(["--config-dir", str(tmp_path), f"{group}=mine"])
    if isinstance(result, Recipe):
        check_accepted(result)

"""Completion, by the protocol of each shell, and in a real bash."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from thaw.cli.main import main

CASES = [
    ("thaw tr", ["train"]),
    ("thaw da", ["data", "dashboard"]),
    ("thaw data ve", ["verify"]),
    ("thaw lr-find --m", ["--min-lr", "--max-lr"]),
    ("thaw export RUN --format on", ["onnx"]),
    ("thaw completion z", ["zsh"]),
    ("thaw train strat", ["strategy="]),
    ("thaw train strategy=fi", ["strategy=finetune", "strategy=first_layers", "strategy=fixed"]),
    ("thaw train optimizer.learn", ["optimizer.learning_rate="]),
    ("thaw lr-find seed=1 trainer.ep", ["trainer.epochs="]),
    ("thaw probe trainer.early", ["trainer.early_stopping."]),
    ("thaw evaluate RUN dataset=hot", ["dataset=hotdog"]),
    ("thaw submit RUN data", ["dataset.root="]),
    ("thaw train --mult", ["--multirun"]),
    ("thaw nonsense stra", []),
]
every_case = pytest.mark.parametrize(("line", "completions"), CASES)


def ask(shell: str, **variables: str) -> list[str]:
    """Ask `thaw` as the script of `shell` does, and return its lines."""
    environment = {**os.environ, "_THAW_COMPLETE": f"{shell}_complete", **variables}
    command = [sys.executable, "-m", "thaw"]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return output.rstrip("\n").splitlines()


@every_case
def test_bash_gets_the_part_after_the_last_equals_sign(line: str, completions: list[str]) -> None:
    prefix = "".join(line.split()[-1].rpartition("=")[:2])
    expected = [f"plain,{completion.removeprefix(prefix)}" for completion in completions]
    assert sorted(ask("bash", COMP_LINE=line, COMP_WORDBREAKS="\"'><=;|&(:")) == sorted(expected)


def test_bash_gets_whole_words_if_the_equals_sign_does_not_break_words() -> None:
    assert ask("bash", COMP_LINE="thaw train strategy=fix", COMP_WORDBREAKS=" ") == ["plain,strategy=fixed"]


@every_case
def test_zsh_gets_whole_words(line: str, completions: list[str]) -> None:
    lines = ask("zsh", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1))
    assert sorted(lines[1::3]) == sorted(completions)
    assert set(lines[0::3]) <= {"plain"}


@every_case
def test_fish_gets_whole_words(line: str, completions: list[str]) -> None:
    lines = ask("fish", COMP_WORDS=line, COMP_CWORD=line.split()[-1])
    assert sorted(text.removeprefix("plain,").split("\t")[0] for text in lines) == sorted(completions)


def test_an_empty_word_completes_to_every_verb() -> None:
    lines = ask("bash", COMP_LINE="thaw ", COMP_WORDBREAKS="=")
    assert {"plain,train", "plain,lr-find", "plain,completion"} <= set(lines)


def test_paths_are_left_to_the_shell() -> None:
    assert ask("bash", COMP_LINE="thaw compare ", COMP_WORDBREAKS="=") == ["dir,"]
    assert ask("bash", COMP_LINE="thaw predict RUN ph", COMP_WORDBREAKS="=") == ["file,ph"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_THAW_COMPLETE={shell}_complete" in script
    assert "%(" not in script


def test_another_shell_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fsh"]) == 2
    assert "fix:   thaw completion fish" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["thaw train strategy=fi", "thaw train optimizer.learn"])
def test_completing_is_fast_and_imports_no_torch(line: str) -> None:
    code = "import sys, thaw.cli.main as m; s = m.main(); print('torch' in sys.modules, 'hydra' in sys.modules)"
    environment = {**os.environ, "_THAW_COMPLETE": "bash_complete", "COMP_LINE": line}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.stdout.splitlines()[-1] == "False False"
    # A single thread: on a free core its time is the time that passes.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.fixture(scope="module")
def bash_prelude(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Put a command `thaw` on the path of a bash, and load the completion script."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "thaw"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m thaw "$@"\n')
    program.chmod(0o755)
    return f"export PATH={folder}:$PATH; source <(thaw completion bash)"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to complete in")
@pytest.mark.parametrize(
    ("line", "words", "replies"),
    [
        ("thaw tr", "thaw tr", ["train"]),
        ("thaw train strategy=fix", "thaw train strategy = fix", ["fixed"]),
        ("thaw train optimizer.learn", "thaw train optimizer.learn", ["optimizer.learning_rate="]),
        ("thaw export RUN --format=safe", "thaw export RUN --format = safe", ["safetensors"]),
    ],
)
def test_a_real_bash_completes(line: str, words: str, replies: list[str], bash_prelude: str) -> None:
    """Call the function of the script with the variables that readline sets."""
    count = len(words.split()) - 1
    variables = f"COMP_WORDS=({words}); COMP_CWORD={count}; COMP_LINE='{line}'; COMP_POINT={len(line)}"
    call = f"compopt() {{ :; }}; {variables}; _thaw_completion thaw; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    script = f"set -e; {bash_prelude}; complete -p thaw >/dev/null; {call}"
    run = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert run.stdout.splitlines() == replies

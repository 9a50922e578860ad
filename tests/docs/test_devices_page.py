"""Every command of docs/devices.md is valid."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.conftest import ROOT
from thaw.config.compose import check_command, parse_command

PAGE = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_valid(line: str) -> None:
    words = shlex.split(line)
    check_command(parse_command(words[words.index("train.py") + 1 :]))


def test_torchrun_accepts_the_arguments_on_the_page() -> None:
    from torch.distributed.run import parse_args

    commands = [shlex.split(line) for line in COMMANDS if line.startswith("torchrun")]
    for words in commands:
        assert parse_args(words[1:]).training_script == "train.py"
    assert len(commands) == 2


@pytest.mark.parametrize("headline", re.findall(r"^- \*(\w.+?)\*: ", PAGE, re.MULTILINE)[:4])
def test_the_headlines_on_the_page_are_in_the_source(headline: str) -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    assert headline.replace("device 1", "device {failed_ranks[0]}") in source

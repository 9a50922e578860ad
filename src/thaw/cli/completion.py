"""`thaw completion SHELL`: a script for bash, zsh or fish; and what the scripts ask `thaw` for. Imports no torch."""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from thaw.cli.grammar import Verb
from thaw.cli.options import path_argument
from thaw.config.errors import EXIT_SUCCESS

PROGRAM, COMPLETE_VARIABLE = "thaw", "_THAW_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

# click's script, with the line up to the cursor: bash splits its words at "=", which separates key and value here.
BASH_SCRIPT = r"""%(complete_func)s() {
    local IFS=$'\n' response completion type value
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
        %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                [[ $value == *[=.] ]] && compopt -o nospace
                ;;
        esac
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

# click's script, without a space after a key or a group, where a value or the rest of the key follows.
ZSH_SCRIPT = r"""#compdef %(prog_name)s

%(complete_func)s() {
    local -a completions prefixes descriptions response
    local type key description
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
        %(complete_var)s=zsh_complete %(prog_name)s)}")
    for type key description in ${response}; do
        if [[ "$type" == "dir" ]]; then
            _path_files -/
        elif [[ "$type" == "file" ]]; then
            _path_files -f
        elif [[ "$description" != "_" ]]; then
            descriptions+=("$key":"$description")
        elif [[ "$key" == *[=.] ]]; then
            prefixes+=("$key")
        else
            completions+=("$key")
        fi
    done
    [ -n "$descriptions" ] && _describe -V unsorted descriptions -U
    [ -n "$prefixes" ] && compadd -U -V unsorted -S '' -a prefixes
    [ -n "$completions" ] && compadd -U -V unsorted -a completions
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


class BashCompletion(BashComplete):
    """Completion for bash, which replaces only the part of a word after the last of COMP_WORDBREAKS."""

    source_template = BASH_SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the whole words before the cursor, without `thaw`, and the part of the word at the cursor."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        return (words, "") if line[-1:].isspace() else (words[:-1], words[-1] if words else "")

    def format_completion(self, item: CompletionItem) -> str:
        """Return the line for the script: the type, and what replaces the part at the cursor."""
        _, incomplete = self.get_completion_args()
        separator = "=" if "=" in incomplete and "=" in os.environ.get("COMP_WORDBREAKS", "=") else ""
        is_option_value = incomplete.startswith("-")  # click completes the value alone
        prefix = incomplete.rpartition("=")[0] + "=" if separator and not is_option_value else ""
        return f"{item.type},{item.value.removeprefix(prefix)}"


class ZshCompletion(ZshComplete):
    """Completion for zsh."""

    source_template = ZSH_SCRIPT


for completion_class in (BashCompletion, ZshCompletion):
    add_completion_class(completion_class)


def answer_completion(command: click.Command, instruction: str) -> int:
    """Print what a completion script asks for with `instruction`, such as `bash_complete`."""
    from click.shell_completion import shell_complete

    return shell_complete(command, {}, PROGRAM, COMPLETE_VARIABLE, instruction)


@Verb(
    "completion",
    summary="print the script that completes words in bash, zsh or fish",
    examples=("source <(thaw completion bash)", "thaw completion fish > ~/.config/fish/completions/thaw.fish"),
    description="Completes verbs, options, groups, choices and keys of the recipe. Load the script in the shell's "
    "start file: ~/.bashrc, ~/.zshrc, or fish's completions folder.",
    paths=(path_argument("shell", "SHELL", click.Choice(SHELLS)),),
    no_args_is_help=True,
)
def completion(shell: str) -> int:
    """Print the completion script of `shell`."""
    classes: dict[str, type[ShellComplete]] = {"bash": BashCompletion, "zsh": ZshCompletion, "fish": FishComplete}
    click.echo(classes[shell](click.get_current_context().find_root().command, {}, PROGRAM, COMPLETE_VARIABLE).source())
    return EXIT_SUCCESS

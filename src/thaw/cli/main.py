"""`thaw COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from thaw.config.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_USER_ERROR, Problem, UserError, find_closest_name

COMMANDS = {
    "train": "train a recipe or a sweep; the same as python train.py",
    "resume": "go on with a run, or with what a sweep has not done",
    "list": "backbones with their figures, strategies, data sets and all other choices",
    "inspect": "a network's stages and layers: shapes, parameters, multiply-adds",
    "find": "a learning rate, or a batch size, for a recipe on this machine",
    "data": "fetch, verify or report on a data set, draw captchas",
    "probe": "linear classifiers and k-NN on a backbone's frozen features; the best becomes a run",
    "compare": "runs side by side: spread over seeds, intervals, paired tests, curves, what is not comparable",
    "features": "features of a data set as a file, in TensorBoard's projector, or as a picture",
    "dashboard": "TensorBoard on a run, a sweep, or all outputs, with the strategies on common charts",
    "cache": "what is kept of data sets, features and weights, and how to be rid of it",
    "evaluate": "a trained network on labelled images, from its checkpoint alone",
    "predict": "what a trained network says of images, or reads in captchas",
    "explain": "what a trained network sees in a picture: Grad-CAM, feature maps, filters, DeepDream",
    "report": "write a run's report.html anew",
    "export": "a trained network as ONNX, torch.export, safetensors or TorchScript, checked against the original",
    "submit": "predict a data set's unlabelled images into a file that Kaggle takes",
}


def main() -> int:
    """Runs the command that the command line names and returns the exit status."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        print(
            "\n".join(["thaw COMMAND", "", *(f"  {name:<10}{description}" for name, description in COMMANDS.items())])
        )
        return EXIT_SUCCESS
    try:
        return _run(command, arguments)
    except UserError as error:
        print(f"thaw: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run(command: str, arguments: Sequence[str]) -> int:
    if command not in COMMANDS:
        fix = f"thaw {find_closest_name(command, COMMANDS) or '--help'}"
        raise UserError("no such command.", [Problem(command, valid=", ".join(COMMANDS), fix=fix)])
    if command == "train":
        from thaw.cli.train import launch

        return launch(arguments)
    module = "listing" if command == "list" else command  # a module of that name would hide Python's own list
    status: int = import_module(f"thaw.cli.{module}").run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())

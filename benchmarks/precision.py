"""Compare bf16 with float32 on a CPU: speed of several networks, and accuracy of EfficientNet-Lite0.

    python -m benchmarks.precision                                        speed; random weights, nothing is downloaded
    python -m benchmarks.precision captcha hymenoptera=DIR clothing10=DIR [key=value ...]                   accuracy too

The speed is what `trainer.precision=auto` decides by: CPU seconds of one thread, so that other programs on the machine
matter little. For the accuracy, `strategy=fixed` and `strategy=finetune` train with three seeds in float32 and with
`trainer.precision=bf16-mixed`, which has every part in bf16, whatever would be faster. Each NAME=DIR is a folder of
images, CLASS/IMAGE or as the preset of that name expects it.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.features.cache_key import describe_architecture
from thaw.features.precision import MIN_SPEEDUP
from thaw.features.speed import NUM_IMAGES, SpeedTest
from thaw.models.factory import build_network, load_seeded_pretrained
from thaw.runs.run import find_runs
from thaw.system.cache_folder import resolve_cache_dir
from thaw.system.devices import get_cpu_name, resolve_memory_format
from thaw.system.process import configure_process

NETWORKS = {
    "ResNet-18": ("backbone=resnet18",),
    "ResNet-50": ("backbone=resnet50",),
    "ViT-S/16": ("backbone=timm", "backbone.name=vit_small_patch16_224"),
    "EfficientNet-Lite0": ("backbone=efficientnet_lite0",),
}
IMAGE_SIZE = 224
PRECISIONS = ("32-true", "bf16-mixed")
PRESETS = ("captcha", "hymenoptera")
FOLDER = ("dataset=folder", "dataset.fractions.val=0.15", "dataset.fractions.test=0.4", "data.broken=skip")
RECIPE = ("dataset.image_size=96", "trainer.epochs=3", "data.train_per_class=30")
SEEDS = (0, 1, 2)
STRATEGIES = ("fixed", "finetune")


def main(arguments: list[str]) -> None:
    print(f"{get_cpu_name()}, milliseconds an image in one thread at {IMAGE_SIZE} pixels\n")
    print("| network | training, float32 | bf16 | faster | frozen pass, float32 | bf16 | faster |")
    print("|---|---|---|---|---|---|---|")
    for name, overrides in NETWORKS.items():
        print(f"| {name} | {' | '.join(measure_network(overrides))} |", flush=True)
    names = [text for text in arguments if is_data_set(text)]
    overrides = [text for text in arguments if not is_data_set(text)]
    if names:
        print("\n| data set | strategy | float32 | bf16 | difference |\n|---|---|---|---|---|")
    for text in names:
        for row in compare_accuracy(*text.partition("=")[::2], overrides):
            print(row, flush=True)


def is_data_set(text: str) -> bool:
    name, _, folder = text.partition("=")
    return name in PRESETS or Path(folder).is_dir()


def measure_network(overrides: tuple[str, ...]) -> Iterator[str]:
    """Yield milliseconds in float32, in bf16 and their ratio, of training and then of a frozen pass."""
    recipe = compose_recipe([*overrides, "strategy=scratch", f"dataset.image_size={IMAGE_SIZE}"])
    configure_process(0, deterministic=True, threads=1)
    cache_dir = resolve_cache_dir(None)
    pretrained = load_seeded_pretrained(recipe.backbone, True, 0, cache_dir, None, IMAGE_SIZE)
    preprocessing = pretrained.preprocessing.with_size(IMAGE_SIZE, None)
    network = build_network(pretrained, recipe.head, tuple("0123456789"), preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        speed_test = SpeedTest(network, describe_architecture(recipe.backbone), IMAGE_SIZE, Path(folder))
        memory_format = resolve_memory_format(recipe.backbone, "cpu")
        yield from format_times([speed_test.measure_training_step(name, memory_format) for name in PRECISIONS])
        yield from format_times([min(speed_test.measure_frozen_pass(name).values()) for name in PRECISIONS])


def format_times(seconds: list[float]) -> Iterator[str]:
    yield from (f"{1000 * value / NUM_IMAGES:.1f}" for value in seconds)
    ratio = seconds[0] / seconds[1]
    yield f"**{ratio:.2f}**" if ratio >= MIN_SPEEDUP else f"{ratio:.2f}"


def compare_accuracy(name: str, root: str, overrides: list[str]) -> Iterator[str]:
    """Yield a row of the table for each strategy."""
    dataset = [f"dataset={name}"] if name in PRESETS else [*FOLDER]
    dataset += [f"dataset.root={root}"] if root else []
    axes = [f"strategy={','.join(STRATEGIES)}", f"trainer.precision={','.join(PRECISIONS)}"]
    axes += [f"seed={','.join(map(str, SEEDS))}"]
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            status = launch(["-m", *axes, *dataset, *RECIPE, *overrides, f"output_dir={folder}"])
        assert status == 0, f"the sweep on {name} failed"
        accuracies: dict[tuple[str, str], list[float]] = {}
        for run in find_runs(Path(folder)):
            key = run.recipe.strategy.name, run.recipe.trainer.precision
            accuracies.setdefault(key, []).append(run.metrics["test"]["accuracy"])
    for strategy in STRATEGIES:
        values = [accuracies[strategy, precision] for precision in PRECISIONS]
        means = [statistics.mean(accuracy) for accuracy in values]
        cells = [f"{mean:.3f} ± {statistics.stdev(value):.3f}" for mean, value in zip(means, values, strict=True)]
        yield f"| {name} | `{strategy}` | {' | '.join(cells)} | {means[1] - means[0]:+.3f} |"


if __name__ == "__main__":
    main(sys.argv[1:])

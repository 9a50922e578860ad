"""Measure what caching features saves: `strategy=fixed` against the plain loop of the tutorials.

    python -m benchmarks.frozen                                             hymenoptera, EfficientNet-Lite0, 25 epochs
    python -m benchmarks.frozen dataset.root=DIR                            the same, with the images in DIR
    python -m benchmarks.frozen dataset=folder dataset.root=DIR trainer.epochs=10

The plain loop decodes, transforms and runs the whole network in every step, loads in as many processes as there are
cores, and validates on the test images after every epoch, as the tutorials do. The runs of thaw start with an empty
cache, split their validation images from the training images, and write a whole run directory. Both start from the same
weights with the same optimizer, schedule and batch size. Everything after the imports counts. A single pass decodes,
transforms and runs the network on every image once. Single passes, first runs and second runs are repeated between the
epochs of the plain loop, so that a machine that is slow for a while slows down all of them. The report shows medians.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.config.schema import Recipe
from thaw.data.preprocessing import Preprocessing
from thaw.metrics.classification import classification_metrics
from thaw.models.network import Network
from thaw.system.process import available_cpus
from thaw.training.setup import Components, build_components

ROUNDS = 3
WARM_UP = ("dataset=captcha", "dataset.characters=AB", "dataset.train=4", "dataset.val=2", "dataset.test=2")
Example = tuple[torch.Tensor, int]


def main(overrides: Sequence[str]) -> None:
    run_overrides = ["dataset=hymenoptera", "trainer.epochs=25", *overrides, "strategy=fixed"]
    recipe = compose_recipe(run_overrides)
    with tempfile.TemporaryDirectory() as folder:
        # The warm-up imports the modules that thaw imports late.
        time_run("warm-up", [*WARM_UP, "strategy=fixed", "trainer.epochs=2"], Path(folder))
        loop = PlainLoop(build_components(recipe), recipe)
        plain_epochs, times = loop.train_epochs(), dict[str, list[float]]()
        for number in range(ROUNDS):
            times.setdefault("pass", []).append(loop.time_single_pass())
            for name in ("first", "second"):
                times.setdefault(name, []).append(time_run(str(number), run_overrides, Path(folder)))
            epoch_seconds = [next(plain_epochs) for _ in range(loop.count_epochs(number))]
            times.setdefault("plain", []).extend(epoch_seconds)
        runs = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("[0-9]/*/metrics.json"))]
    times["own"] = [run["timing"]["wall_s"] for run in runs if not run["timing"]["cache_s"]]
    report(times, loop.compute_metrics(), runs[0]["test"])


def time_run(name: str, overrides: Sequence[str], folder: Path) -> float:
    """Train a run of thaw and return its seconds. Runs of the same name share a cache."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        status = launch([*overrides, f"output_dir={folder / name}", f"data.cache_dir={folder / 'caches' / name}"])
    assert status == 0
    return time.perf_counter() - start


@dataclass(frozen=True)
class ImageFiles(Dataset[Example]):
    """Images that are decoded from their files on every access, as by an ImageFolder."""

    components: Components
    positions: list[int]
    transform: v2.Compose

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Example:
        samples = self.components.data.samples
        sample = samples.samples[self.positions[index]]
        with Image.open(samples.root / sample.path) as image:
            return self.transform(image.convert("RGB")), sample.label


class PlainLoop:
    """The loop of the tutorials: frozen backbone, new last layer, every image through all of it in every epoch."""

    def __init__(self, components: Components, recipe: Recipe) -> None:
        samples, batch_size = components.data.samples, recipe.trainer.batch_size
        transform = build_transform(components.model.preprocessing)
        train, val, test = (samples.get_positions(split).tolist() for split in ("train", "val", "test"))

        def build_loader(positions: list[int], shuffle: bool = False) -> DataLoader[Example]:
            images = ImageFiles(components, positions, transform)
            return DataLoader(images, batch_size, shuffle=shuffle, num_workers=available_cpus())

        self.device = torch.device("cuda" if components.devices.is_on_gpu else "cpu")
        self.train_loader = build_loader([*train, *val], shuffle=True)
        self.test_loader = build_loader(test)
        self.full_loader = build_loader([*train, *val, *test])
        self.network: Network = components.model.network.to(self.device).eval()
        self.network.requires_grad_(False)
        self.network.head.requires_grad_(True)
        learning_rate = recipe.optimizer.learning_rate * 10  # strategy=fixed gives the head ten times the rate
        head_parameters = self.network.head.parameters()
        self.optimizer = torch.optim.AdamW(head_parameters, learning_rate, weight_decay=recipe.optimizer.weight_decay)
        self.epochs = recipe.trainer.epochs
        num_steps = max(2, self.epochs * len(self.train_loader))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, learning_rate, num_steps)

    def count_epochs(self, number: int) -> int:
        """Return how many of the epochs the round `number` trains."""
        return self.epochs * (number + 1) // ROUNDS - self.epochs * number // ROUNDS

    def train_epochs(self) -> Iterator[float]:
        """Train and yield the seconds of each epoch."""
        for _ in range(self.epochs):
            start = time.perf_counter()
            for images, labels in self.train_loader:
                loss = torch.nn.functional.cross_entropy(self.network(images.to(self.device)), labels.to(self.device))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
            self.logits = self.predict(self.test_loader)
            yield time.perf_counter() - start

    @torch.no_grad()
    def predict(self, loader: DataLoader[Example]) -> torch.Tensor:
        return torch.cat([self.network(images.to(self.device)).cpu() for images, _ in loader])

    def time_single_pass(self) -> float:
        """Run the network on every image once and return the seconds."""
        start = time.perf_counter()
        self.predict(self.full_loader)
        return time.perf_counter() - start

    def compute_metrics(self) -> dict[str, float]:
        labels = torch.tensor([label for _, labels in self.test_loader for label in labels.tolist()])
        return classification_metrics(self.logits, labels)


def build_transform(preprocessing: Preprocessing) -> v2.Compose:
    steps = [v2.Resize(preprocessing.resize, v2.InterpolationMode(preprocessing.interpolation))]
    steps += [v2.CenterCrop(preprocessing.size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*steps, v2.Normalize(preprocessing.mean, preprocessing.std)])


def report(times: dict[str, list[float]], plain_metrics: dict[str, float], metrics: dict[str, float]) -> None:
    """Print the seconds of all contestants, their test accuracies and the ratios of their times."""
    single_pass, first, second = (statistics.median(times[name]) for name in ("pass", "first", "second"))
    plain = sum(times["plain"])
    low, high = metrics["accuracy_ci95"]
    plain_accuracy = f"test accuracy {plain_metrics['accuracy']:.3f}"
    print(f"\nplain loop, {len(times['plain'])} epochs      {plain:8.1f} s   {plain_accuracy}")
    print(f"single pass over the images {single_pass:8.1f} s")
    accuracy = f"test accuracy {metrics['accuracy']:.3f} ({low:.3f} to {high:.3f})"
    print(f"thaw, first run             {first:8.1f} s   {accuracy}")
    overhead = second - statistics.median(times["own"])
    remark = f"{overhead:.1f} s of them compose the recipe and write the report"
    print(f"thaw, features in the cache {second:8.1f} s   {remark}")
    print(f"\nfaster than the plain loop: first run {plain / first:.1f} times, second {plain / second:.1f} times")
    print(f"the first run takes {first / single_pass:.2f} of a single pass")


if __name__ == "__main__":
    main(sys.argv[1:])

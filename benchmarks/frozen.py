"""What caching features saves: `strategy=fixed` beside a plain loop over frozen features, as tutorials write it.

    python -m benchmarks.frozen                                             hymenoptera, EfficientNet-Lite0, 25 epochs
    python -m benchmarks.frozen dataset.root=DIR                            the same, of images that lie in DIR
    python -m benchmarks.frozen dataset=folder dataset.root=DIR trainer.epochs=10

The plain loop decodes, transforms and runs the whole network in every step, loads in as many processes as there are
cores, and validates on the test images after every epoch, as the tutorials do. thaw's runs begin with an empty cache,
cut their validation images from the training images, and leave a whole run directory. Both start from the same weights
with the same optimizer, schedule and batch size. Everything after the imports counts. A single pass decodes, transforms
and runs the network on every image once. Single passes, first and second runs are repeated between the epochs of the
plain loop, so that a machine which is slow for a while is slow for all; their medians are told.
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
from thaw.metrics.classification import classification_metrics
from thaw.models.network import Network
from thaw.system.process import available_cpus
from thaw.training.setup import Components, build_components

ROUNDS = 3
WARM_UP = ("dataset=captcha", "dataset.characters=AB", "dataset.train=4", "dataset.val=2", "dataset.test=2")
Example = tuple[torch.Tensor, int]


def main(overrides: Sequence[str]) -> None:
    given = ["dataset=hymenoptera", "trainer.epochs=25", *overrides, "strategy=fixed"]
    recipe = compose_recipe(given)
    with tempfile.TemporaryDirectory() as folder:
        ours("warm-up", [*WARM_UP, "strategy=fixed", "trainer.epochs=2"], Path(folder))  # imports what is imported late
        made = build_components(recipe)
        loop = Plain(made, recipe)
        plain, times = loop.epochs(), dict[str, list[float]]()
        for number in range(ROUNDS):
            times.setdefault("pass", []).append(loop.single_pass())
            for name in ("first", "second"):
                times.setdefault(name, []).append(ours(str(number), given, Path(folder)))
            seconds = [next(plain) for _ in range(loop.share(number))]
            times.setdefault("plain", []).extend(seconds)
        runs = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("[0-9]/*/metrics.json"))]
    times["own"] = [run["timing"]["wall_s"] for run in runs if not run["timing"]["cache_s"]]
    report(times, loop.metrics(), runs[0]["test"])


def ours(name: str, given: Sequence[str], folder: Path) -> float:
    """Seconds of one run; runs of the same name share a cache."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        status = launch([*given, f"output_dir={folder / name}", f"data.cache_dir={folder / 'caches' / name}"])
    assert status == 0
    return time.perf_counter() - began


@dataclass(frozen=True)
class Files(Dataset[Example]):
    """Images from their files, as an ImageFolder gives them."""

    made: Components
    positions: list[int]
    transform: v2.Compose

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Example:
        sample = self.made.data.samples.samples[self.positions[index]]
        with Image.open(self.made.data.samples.root / sample.path) as image:
            return self.transform(image.convert("RGB")), sample.label


class Plain:
    """The loop of the tutorials: frozen backbone, new last layer, all images through all of it in every epoch."""

    def __init__(self, made: Components, recipe: Recipe) -> None:
        preprocessing = made.model.preprocessing
        steps = [v2.Resize(preprocessing.resize, v2.InterpolationMode(preprocessing.interpolation))]
        steps += [v2.CenterCrop(preprocessing.size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        transform = v2.Compose([*steps, v2.Normalize(preprocessing.mean, preprocessing.std)])
        splits = {split: made.data.samples.get_positions(split).tolist() for split in ("train", "val", "test")}
        train, test = [*splits["train"], *splits["val"]], splits["test"]
        size, count = recipe.trainer.batch_size, recipe.trainer.epochs
        self.device = torch.device("cuda" if made.devices.is_on_gpu else "cpu")
        self.train = DataLoader(Files(made, train, transform), size, shuffle=True, num_workers=available_cpus())
        self.test = DataLoader(Files(made, test, transform), size, num_workers=available_cpus())
        self.everything = DataLoader(Files(made, [*train, *test], transform), size, num_workers=available_cpus())
        self.network: Network = made.model.network.to(self.device).eval()
        self.network.requires_grad_(False)
        self.network.head.requires_grad_(True)
        rate = recipe.optimizer.learning_rate * 10  # strategy=fixed gives the head ten times the rate
        head = self.network.head.parameters()
        self.optimizer = torch.optim.AdamW(head, rate, weight_decay=recipe.optimizer.weight_decay)
        total = max(2, count * len(self.train))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total)
        self.count = count

    def share(self, number: int) -> int:
        """How many of the epochs are trained in a round."""
        return self.count * (number + 1) // ROUNDS - self.count * number // ROUNDS

    def epochs(self) -> Iterator[float]:
        """Seconds of each."""
        for _ in range(self.count):
            began = time.perf_counter()
            for images, labels in self.train:
                loss = torch.nn.functional.cross_entropy(self.network(images.to(self.device)), labels.to(self.device))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
            self.logits = self.predicted(self.test)
            yield time.perf_counter() - began

    @torch.no_grad()
    def predicted(self, loader: DataLoader[Example]) -> torch.Tensor:
        return torch.cat([self.network(images.to(self.device)).cpu() for images, _ in loader])

    def single_pass(self) -> float:
        began = time.perf_counter()
        self.predicted(self.everything)
        return time.perf_counter() - began

    def metrics(self) -> dict[str, float]:
        labels = torch.tensor([label for _, labels in self.test for label in labels.tolist()])
        return classification_metrics(self.logits, labels)


def report(times: dict[str, list[float]], plain: dict[str, float], metrics: dict[str, float]) -> None:
    once, first, second = (statistics.median(times[name]) for name in ("pass", "first", "second"))
    whole = sum(times["plain"])
    low, high = metrics["accuracy_ci95"]
    print(f"\nplain loop, {len(times['plain'])} epochs      {whole:8.1f} s   test accuracy {plain['accuracy']:.3f}")
    print(f"single pass over the images {once:8.1f} s")
    accuracy = f"test accuracy {metrics['accuracy']:.3f} ({low:.3f} to {high:.3f})"
    print(f"thaw, first run             {first:8.1f} s   {accuracy}")
    around = f"{second - statistics.median(times['own']):.1f} s of them compose the recipe and write the report"
    print(f"thaw, features in the cache {second:8.1f} s   {around}")
    print(f"\nfaster than the plain loop: first run {whole / first:.1f} times, second {whole / second:.1f} times")
    print(f"the first run takes {first / once:.2f} of a single pass")


if __name__ == "__main__":
    main(sys.argv[1:])

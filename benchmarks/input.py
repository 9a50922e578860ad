"""What input costs beside a training step: decode once and augment in batches, against a DataLoader of the usual
torchvision transforms with two workers.

    python -m benchmarks.input                   400 JPEGs of 500 x 375 pixels, random crop and mirror image at 224
    python -m benchmarks.input --root DIR        an image folder of your own: DIR/CLASS/*.jpg

On a CPU both compete with the step for the same cores, so each is timed alone, over whole epochs, and compared with the
step's time an image. Then the step is fed with real input, and compared with itself on one resident batch: ResNet-18 in
bf16 where there is a GPU, EfficientNet-Lite0 on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from thaw.config.compose import compose_recipe
from thaw.data.augmentation import Augmentation
from thaw.data.batches import EpochBatchSampler, ImageDataset, build_dataloader
from thaw.data.image_store import open_image_store
from thaw.data.samples import load_folder_samples
from thaw.data.transforms import apply_augmentation
from thaw.models.factory import load_seeded_pretrained, uninitialized_network
from thaw.system.process import available_cpus, configure_process
from thaw.training.dataloaders import MAX_WORKERS

SIZE, BATCH, EPOCHS = 224, 32, 3
SCALE, FLIP = (0.35, 1.0), 0.5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--root", type=Path, help="an image folder: DIR/CLASS/*.jpg")
    root = arguments.parse_args().root
    configure_process(0, True, None)
    with tempfile.TemporaryDirectory() as folder:
        images = root or photographs(Path(folder) / "images", 400)
        report(*measured(images, Path(folder) / "cache"))
        report_fed(*fed(images, Path(folder) / "cache"))


def photographs(root: Path, count: int) -> Path:
    """JPEGs with the detail, and so the decoding time, of photographs: noise at several scales."""
    dice = np.random.default_rng(0)
    for number in range(count):
        folder = root / ("ants", "bees")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        layers = [Image.fromarray(dice.integers(0, 256, (375 // k, 500 // k, 3), dtype=np.uint8)) for k in (4, 12, 50)]
        pixels = np.mean([np.asarray(layer.resize((500, 375), Image.Resampling.BICUBIC)) for layer in layers], axis=0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=88)
    return root


def measured(root: Path, cache: Path) -> tuple[float, float, float, float]:
    """Milliseconds an image: building the store once, input of ours, input of the usual loader, a training step."""
    recipe = compose_recipe(["trainer.accelerator=cpu"])
    samples = load_folder_samples(root, {"train": None, "val": None, "test": None}, {"val": 0.0, "test": 0.1}, 0)
    source = load_seeded_pretrained(recipe.backbone, False, 0, cache, None)
    preprocessing = source.preprocessing.with_size(SIZE, None)
    started = time.perf_counter()
    store = open_image_store(samples, preprocessing, cache)
    store_ms = 1e3 * (time.perf_counter() - started) / len(samples.samples)
    images = ImageDataset(store, samples.get_labels(), SIZE, Augmentation(scale=SCALE, flip=FLIP), 0)
    ours = build_dataloader(images, EpochBatchSampler(samples.get_positions("train"), BATCH, 0), 0, False)
    network = uninitialized_network(source, recipe.head, 2, preprocessing).to(memory_format=torch.channels_last)
    usual = usual_loader(root)
    return store_ms, epoch_ms(lambda: our_batches(ours)), epoch_ms(lambda: iter(usual)), step_ms(network)


def fed(root: Path, cache: Path) -> tuple[str, float, float]:
    """The device, and images a second of training steps on one resident batch and on real input."""
    on_gpu = torch.cuda.is_available()
    device, batch, epochs = (torch.device("cuda"), 256, 20) if on_gpu else (torch.device("cpu"), BATCH, 2)
    recipe = compose_recipe(["backbone=resnet18" if on_gpu else "backbone=efficientnet_lite0", "strategy=scratch"])
    samples = load_folder_samples(root, {"train": None, "val": None, "test": None}, {"val": 0.0, "test": 0.1}, 0)
    source = load_seeded_pretrained(recipe.backbone, True, 0, cache, None)
    preprocessing = source.preprocessing.with_size(SIZE, None)
    images = ImageDataset(
        open_image_store(samples, preprocessing, cache),
        samples.get_labels(),
        SIZE,
        Augmentation(scale=SCALE, flip=FLIP),
    )
    positions = np.tile(samples.get_positions("train"), epochs)  # one long epoch: workers start once
    feed = build_dataloader(
        images, EpochBatchSampler(positions, batch, 0), min(MAX_WORKERS, available_cpus()) if on_gpu else 0, on_gpu
    )
    network = uninitialized_network(source, recipe.head, 2, preprocessing).to(device, memory_format=torch.channels_last)
    step = training_step(network, device)
    resident = next(batches_on(feed, device))
    steps = len(positions) // batch
    on_resident = images_per_second(step, (resident for _ in range(steps)), device)
    name = torch.cuda.get_device_name() if on_gpu else f"{available_cpus()} CPU cores"
    return f"{recipe.backbone.name} on {name}", on_resident, images_per_second(step, batches_on(feed, device), device)


def batches_on(feed: DataLoader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in feed:
        drawn = {name: value.to(device, non_blocking=True) for name, value in batch.augmentation_params.items()}
        images = apply_augmentation(batch.images.to(device, non_blocking=True), drawn, SIZE)
        yield images.contiguous(memory_format=torch.channels_last), batch.labels.to(device, non_blocking=True)


def training_step(network: torch.nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, fused=True)
    network.train()

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(network((images - 127.5) / 127.5), labels)
        loss.backward()
        optimizer.step()

    return step


def images_per_second(
    step: Callable[[Tensor, Tensor], None], batches: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """Behind three steps that warm up and fill what is fetched ahead."""
    count, started = 0, 0.0
    for number, (images, labels) in enumerate(batches):
        if number == 3:
            _wait_for(device)
            count, started = 0, time.perf_counter()
        step(images, labels)
        count += len(labels)
    _wait_for(device)
    return count / (time.perf_counter() - started)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def our_batches(feed: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in feed:
        yield apply_augmentation(batch.images, batch.augmentation_params, SIZE), batch.labels


def usual_loader(root: Path) -> DataLoader:
    """As the tutorials write it."""
    crop, flip = v2.RandomResizedCrop(SIZE, scale=SCALE), v2.RandomHorizontalFlip(FLIP)
    transform = v2.Compose([crop, flip, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    folder = ImageFolder(root, transform)
    return DataLoader(folder, BATCH, shuffle=True, num_workers=2, persistent_workers=True)


def epoch_ms(batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> float:
    """Milliseconds an image, median over the epochs behind a first one that starts workers and fills caches."""
    seconds = []
    for _ in range(EPOCHS + 1):
        started = time.perf_counter()
        count = sum(len(labels) for _, labels in batches())
        seconds.append((time.perf_counter() - started) / count)
    return 1e3 * statistics.median(seconds[1:])


def step_ms(network: torch.nn.Module) -> float:
    """Milliseconds an image of a whole fine-tuning step on one resident batch."""
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels, seconds = torch.zeros(BATCH, dtype=torch.int64), []
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network.train()
    for _ in range(6):
        started = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        seconds.append((time.perf_counter() - started) / BATCH)
    return 1e3 * statistics.median(seconds[1:])


def report(store: float, ours: float, usual: float, step: float) -> None:
    print(f"\n{available_cpus()} CPU cores, {SIZE} px, milliseconds an image")
    print(f"  training step, EfficientNet-Lite0              {step:7.2f}")
    print(f"  thaw: decode and resize, once for all runs     {store:7.2f}")
    print(f"  thaw: input of an epoch                        {ours:7.2f}   {ours / step:6.1%} of the step")
    print(f"  usual DataLoader, 2 workers                    {usual:7.2f}   {usual / step:6.1%} of the step")


def report_fed(name: str, resident: float, real: float) -> None:
    print(f"\n{name}, images a second")
    print(f"  steps on a resident batch {resident:.1f}, on real input {real:.1f}: {real / resident:.3f} of it")


if __name__ == "__main__":
    main()

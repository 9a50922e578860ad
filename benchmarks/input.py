"""Compare the cost of input with that of a training step: decode once and augment in batches, against a DataLoader.

    python -m benchmarks.input                   400 JPEGs of 500 x 375 pixels, random crop and mirror image at 224
    python -m benchmarks.input --root DIR        your own image folder: DIR/CLASS/*.jpg

The DataLoader uses the usual torchvision transforms and two workers. On a CPU, input and step compete for the same
cores, so each is timed alone, over whole epochs, and compared with the time of a step per image. Then steps on real
input are compared with steps on one resident batch: ResNet-18 in bf16 on a GPU, EfficientNet-Lite0 on a CPU.
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
from thaw.data.image_store import ImageStore, open_image_store
from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings
from thaw.data.transforms import apply_augmentation
from thaw.models.factory import load_seeded_pretrained, uninitialized_network
from thaw.system.process import available_cpus, configure_process
from thaw.training.dataloaders import MAX_WORKERS

IMAGE_SIZE, BATCH_SIZE, EPOCHS = 224, 32, 3
CROP_SCALE, FLIP_PROBABILITY = (0.35, 1.0), 0.5
WARM_UP_STEPS = 3
Batches = Iterator[tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="an image folder: DIR/CLASS/*.jpg")
    root = parser.parse_args().root
    configure_process(0, True, None)
    with tempfile.TemporaryDirectory() as folder:
        images = root or write_photographs(Path(folder) / "images", 400)
        report(*measure_input(images, Path(folder) / "cache"))
        report_throughput(*measure_throughput(images, Path(folder) / "cache"))


def write_photographs(root: Path, count: int) -> Path:
    """Write JPEGs with the detail, and so the decoding time, of photographs: noise at several scales."""
    rng = np.random.default_rng(0)
    for index in range(count):
        folder = root / ("ants", "bees")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        layers = [Image.fromarray(rng.integers(0, 256, (375 // k, 500 // k, 3), dtype=np.uint8)) for k in (4, 12, 50)]
        pixels = np.mean([np.asarray(layer.resize((500, 375), Image.Resampling.BICUBIC)) for layer in layers], axis=0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:04}.jpg", quality=88)
    return root


def measure_input(root: Path, cache: Path) -> tuple[float, float, float, float]:
    """Return milliseconds per image: building the image store once, thaw's input, usual input, a training step."""
    recipe = compose_recipe(["trainer.accelerator=cpu"])
    samples = load_samples(root)
    source = load_seeded_pretrained(recipe.backbone, False, 0, cache, None)
    preprocessing = source.preprocessing.with_size(IMAGE_SIZE, None)
    start = time.perf_counter()
    store = open_image_store(samples, preprocessing, cache)
    store_ms = 1e3 * (time.perf_counter() - start) / len(samples.samples)
    sampler = EpochBatchSampler(samples.get_positions("train"), BATCH_SIZE, 0)
    loader = build_dataloader(build_dataset(store, samples), sampler, 0, False)
    usual_loader = build_usual_loader(root)
    network = uninitialized_network(source, recipe.head, 2, preprocessing).to(memory_format=torch.channels_last)
    thaw_ms = time_epochs(lambda: iter_augmented(loader))
    return store_ms, thaw_ms, time_epochs(lambda: iter(usual_loader)), time_steps(network)


def load_samples(root: Path) -> Samples:
    return load_folder_samples(
        root, {"train": None, "val": None, "test": None}, SplitSettings({"val": 0.0, "test": 0.1})
    )


def build_dataset(store: ImageStore, samples: Samples) -> ImageDataset:
    augmentation = Augmentation(scale=CROP_SCALE, flip=FLIP_PROBABILITY)
    return ImageDataset(store, samples.get_labels(), IMAGE_SIZE, augmentation, 0)


def measure_throughput(root: Path, cache: Path) -> tuple[str, float, float]:
    """Return the device, and images per second of training steps on one resident batch and on real input."""
    on_gpu = torch.cuda.is_available()
    device, batch_size, epochs = (torch.device("cuda"), 256, 20) if on_gpu else (torch.device("cpu"), BATCH_SIZE, 2)
    recipe = compose_recipe(["backbone=resnet18" if on_gpu else "backbone=efficientnet_lite0", "strategy=scratch"])
    samples = load_samples(root)
    source = load_seeded_pretrained(recipe.backbone, True, 0, cache, None)
    preprocessing = source.preprocessing.with_size(IMAGE_SIZE, None)
    dataset = build_dataset(open_image_store(samples, preprocessing, cache), samples)
    positions = np.tile(samples.get_positions("train"), epochs)  # one long epoch: workers start once
    num_workers = min(MAX_WORKERS, available_cpus()) if on_gpu else 0
    loader = build_dataloader(dataset, EpochBatchSampler(positions, batch_size, 0), num_workers, on_gpu)
    network = uninitialized_network(source, recipe.head, 2, preprocessing).to(device, memory_format=torch.channels_last)
    step = build_training_step(network, device)
    resident_batch = next(iter_on_device(loader, device))
    num_steps = len(positions) // batch_size
    resident_speed = count_images_per_second(step, (resident_batch for _ in range(num_steps)), device)
    speed = count_images_per_second(step, iter_on_device(loader, device), device)
    device_name = torch.cuda.get_device_name() if on_gpu else f"{available_cpus()} CPU cores"
    return f"{recipe.backbone.name} on {device_name}", resident_speed, speed


def iter_on_device(loader: DataLoader, device: torch.device) -> Batches:
    """Yield augmented images and labels on `device`."""
    for batch in loader:
        params = {name: value.to(device, non_blocking=True) for name, value in batch.augmentation_params.items()}
        images = apply_augmentation(batch.images.to(device, non_blocking=True), params, IMAGE_SIZE)
        yield images.contiguous(memory_format=torch.channels_last), batch.labels.to(device, non_blocking=True)


def build_training_step(network: torch.nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, fused=True)
    network.train()

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(network((images - 127.5) / 127.5), labels)
        loss.backward()
        optimizer.step()

    return step


def count_images_per_second(step: Callable[[Tensor, Tensor], None], batches: Batches, device: torch.device) -> float:
    """Return the throughput after the first steps, which warm up and fill the prefetch queues."""
    count, start = 0, 0.0
    for index, (images, labels) in enumerate(batches):
        if index == WARM_UP_STEPS:
            _wait_for_device(device)
            count, start = 0, time.perf_counter()
        step(images, labels)
        count += len(labels)
    _wait_for_device(device)
    return count / (time.perf_counter() - start)


def _wait_for_device(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def iter_augmented(loader: DataLoader) -> Batches:
    for batch in loader:
        yield apply_augmentation(batch.images, batch.augmentation_params, IMAGE_SIZE), batch.labels


def build_usual_loader(root: Path) -> DataLoader:
    """Build the DataLoader that tutorials use."""
    crop, flip = v2.RandomResizedCrop(IMAGE_SIZE, scale=CROP_SCALE), v2.RandomHorizontalFlip(FLIP_PROBABILITY)
    transform = v2.Compose([crop, flip, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    folder = ImageFolder(root, transform)
    return DataLoader(folder, BATCH_SIZE, shuffle=True, num_workers=2, persistent_workers=True)


def time_epochs(start_epoch: Callable[[], Batches]) -> float:
    """Return the median milliseconds per image. The first epoch starts workers and fills caches, and is not counted."""
    seconds = []
    for _ in range(EPOCHS + 1):
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in start_epoch())
        seconds.append((time.perf_counter() - start) / count)
    return 1e3 * statistics.median(seconds[1:])


def time_steps(network: torch.nn.Module) -> float:
    """Return milliseconds per image of a whole fine-tuning step on one resident batch."""
    images = torch.randn(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE).contiguous(memory_format=torch.channels_last)
    labels, seconds = torch.zeros(BATCH_SIZE, dtype=torch.int64), []
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network.train()
    for _ in range(6):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        seconds.append((time.perf_counter() - start) / BATCH_SIZE)
    return 1e3 * statistics.median(seconds[1:])


def report(store_ms: float, thaw_ms: float, usual_ms: float, step_ms: float) -> None:
    print(f"\n{available_cpus()} CPU cores, {IMAGE_SIZE} px, milliseconds an image")
    print(f"  training step, EfficientNet-Lite0              {step_ms:7.2f}")
    print(f"  thaw: decode and resize, once for all runs     {store_ms:7.2f}")
    print(f"  thaw: input of an epoch                        {thaw_ms:7.2f}   {thaw_ms / step_ms:6.1%} of the step")
    print(f"  usual DataLoader, 2 workers                    {usual_ms:7.2f}   {usual_ms / step_ms:6.1%} of the step")


def report_throughput(device_name: str, resident: float, real: float) -> None:
    print(f"\n{device_name}, images a second")
    print(f"  steps on a resident batch {resident:.1f}, on real input {real:.1f}: {real / resident:.3f} of it")


if __name__ == "__main__":
    main()

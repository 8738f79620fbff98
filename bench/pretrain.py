"""`medtransfer pretrain`: how the bundled weights were made. A network learns the classes of natural images and, where
there are teachers, to predict their features (Romero et al. 2015, with the last features only).

An epoch's end is kept in a checkpoint, so the same command goes on after an interruption, with the same result.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from bench import device as devices
from bench import provenance
from bench.augment import colour_jitter, random_crop
from bench.backbones import build_features, normalisation, resolve, width_of
from bench.cache import cache_folder, whole_file
from bench.contract import Backbone, Protocol
from bench.errors import Diverged
from bench.images import normalise, resize
from bench.natural import load_natural
from bench.network import Network
from bench.recipe import Recipe, training
from bench.run import seeded
from bench.train import lr_factor

Say = Callable[[str], None]
"""Told what is done, in a line."""
Watch = Callable[[Sequence[Any], str], Iterable[Any]]
"""Gives the steps of something long, which has a name, one after the other, and may show how far it is."""
BATCH = 250
"""Images at once where nothing is trained."""
SCHEDULE = Protocol(warmup=0.05, schedule="cosine")


@dataclass(frozen=True, eq=False)
class Lessons:
    """What every network of a recipe learns from."""

    classes: tuple[str, ...]
    pixels: dict[str, Tensor]
    """"train" and "val": uint8 [N, 3, S, S]; they stay in main memory."""
    labels: dict[str, Tensor]
    """int64 [N]."""
    targets: list[Tensor]
    """Of each teacher: float32 [N, D], features of the training images."""
    identity: dict[str, Any]
    """Recipe, images and teachers as JSON values: all that determines the result but the network."""


@dataclass(frozen=True, eq=False)
class Student:
    """What is trained, and all that a checkpoint holds of it."""

    net: Network
    regressors: nn.ModuleList
    """One linear map from the network's features to each teacher's."""
    optimizer: torch.optim.Optimizer
    mean: Tensor
    std: Tensor

    def features(self, images: Tensor) -> Tensor:
        """float32 in 0..1 [N, 3, S, S] -> [N, D]."""
        return self.net.features(normalise(images, self.mean, self.std).contiguous(memory_format=torch.channels_last))

    def state(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "regressors": self.regressors.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.regressors.load_state_dict(state["regressors"])
        self.optimizer.load_state_dict(state["optimizer"])


def pretrain(recipe: Recipe, say: Say, watch: Watch = lambda steps, text: steps) -> None:
    """Train every network of the recipe that is not finished. Writes OUT/NAME.safetensors (the backbone, half
    precision), NAME.head.safetensors (its classifier), NAME.json (what was done, val accuracy of the files as written,
    seconds, hardware) and NAME.log.jsonl (a line an epoch). Raises UsageError, DataError, WeightsError, Diverged."""
    out = Path(recipe.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    device = devices.pick(recipe.device)
    missing = [b for b in recipe.backbones if not (out / f"{b.name}.json").exists()]
    for backbone in recipe.backbones:
        if backbone not in missing:
            say(f"{backbone.name}: {out / backbone.name}.json says that it is finished; delete it to train anew")
    if missing:
        lessons = _prepare(recipe, device, say, watch)
        for backbone in missing:
            _train(backbone, lessons, recipe, out, device, say, watch)


def _prepare(recipe: Recipe, device: torch.device, say: Say, watch: Watch) -> Lessons:
    natural = load_natural(recipe.images, recipe.size)
    pixels = {name: torch.from_numpy(images).permute(0, 3, 1, 2) for name, images in natural.images.items()}
    labels = {name: torch.from_numpy(values) for name, values in natural.labels.items()}
    counts = f"{len(labels['train'])} training and {len(labels['val'])} val images"
    say(f"{recipe.images}: {counts} of {len(natural.classes)} classes")
    seen = (pixels["train"], natural.sha256, recipe.teacher_size, device, say, watch)
    targets = [_taught(teacher, *seen) for teacher in recipe.teachers]
    teachers = {teacher.label: resolve(teacher).hash for teacher in recipe.teachers}
    identity = {"recipe": training(recipe), "images": natural.sha256, "teachers": teachers}
    return Lessons(natural.classes, pixels, labels, targets, identity)


def _taught(
    teacher: Backbone, pixels: Tensor, images_hash: str, size: int, device: torch.device, say: Say, watch: Watch
) -> Tensor:
    """The teacher's features of the whole images, float32 [N, D], each of zero mean and unit deviation over the images;
    kept in the cache folder, since they take as long as some epochs."""
    identity = json.dumps([asdict(teacher), resolve(teacher).hash, images_hash, size], sort_keys=True)
    kept = cache_folder("teachers") / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.npy"
    if not kept.exists():
        started = time.perf_counter()
        features = _features(teacher, pixels, size, device, watch)
        with whole_file(kept) as temporary, temporary.open("wb") as file:
            np.save(file, features.numpy())
        say(f"teacher {teacher.label}: {features.shape[1]} features an image, {time.perf_counter() - started:.0f} s")
    features = torch.from_numpy(np.load(kept, allow_pickle=False))
    return (features - features.mean(0)) / features.std(0).clamp_min(1e-6)


def _features(teacher: Backbone, pixels: Tensor, size: int, device: torch.device, watch: Watch) -> Tensor:
    net = build_features(teacher, 0).to(device).to(memory_format=torch.channels_last).eval()
    mean, std = (value.to(device) for value in normalisation(teacher))
    parts = []
    with torch.inference_mode():
        for images in watch(pixels.split(BATCH), f"teacher {teacher.label}"):
            seen = normalise(resize(images.to(device), size, "bilinear").float().div_(255), mean, std)
            parts.append(net(seen.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(parts)


def _train(
    backbone: Backbone, lessons: Lessons, recipe: Recipe, out: Path, device: torch.device, say: Say, watch: Watch
) -> None:
    student = _student(backbone, lessons, recipe, device)
    checkpoint, log = out / f"{backbone.name}.part", out / f"{backbone.name}.log.jsonl"
    identity = lessons.identity | {"backbone": asdict(backbone)}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    lines: list[dict[str, Any]] = []
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True, map_location=device)
        if kept["key"] == key:
            student.load(kept["state"])
            lines = kept["lines"]
            say(f"{backbone.name}: going on after epoch {len(lines)}")
    seconds = lines[-1]["seconds"] if lines else 0.0
    for epoch in range(len(lines), recipe.epochs):
        started = time.perf_counter()
        class_loss, teacher_loss = _epoch(student, lessons, recipe, epoch, device, watch)
        if not math.isfinite(class_loss + teacher_loss):
            raise Diverged(
                f"{backbone.name}: the loss became {class_loss} in epoch {epoch + 1}. Lower the recipe's lr."
            )
        accuracy = _accuracy(student, lessons, device)
        seconds += time.perf_counter() - started
        lines.append(
            {"epoch": epoch + 1, "class_loss": class_loss, "teacher_loss": teacher_loss, "val_accuracy": accuracy}
            | {"seconds": seconds}
        )
        with whole_file(checkpoint) as temporary:
            torch.save({"key": key, "state": student.state(), "lines": lines}, temporary)
        with whole_file(log) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
        left = seconds / len(lines) * (recipe.epochs - len(lines)) / 60
        say(
            f"{backbone.name}: epoch {epoch + 1} of {recipe.epochs}, class loss {class_loss:.3f}, teacher loss "
            f"{teacher_loss:.3f}, val accuracy {accuracy:.1%}, about {left:.0f} min left"
        )
    _write(student, backbone.name, lessons, identity | {"seconds": seconds}, out, device, say)
    checkpoint.unlink(missing_ok=True)


def _student(backbone: Backbone, lessons: Lessons, recipe: Recipe, device: torch.device) -> Student:
    net = Network(build_features(backbone, recipe.seed), width_of(backbone), len(lessons.classes), recipe.seed)
    with seeded(recipe.seed, device):
        regressors = nn.ModuleList(nn.Linear(net.head.in_features, t.shape[1]) for t in lessons.targets)
    net, regressors = net.to(device).to(memory_format=torch.channels_last), regressors.to(device)
    every = [*net.parameters(), *regressors.parameters()]
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},  # biases and norms, as is usual
    ]
    mean, std = (value.to(device) for value in normalisation(backbone))
    return Student(net, regressors, torch.optim.AdamW(groups, lr=recipe.lr, fused=True), mean, std)


def _epoch(
    student: Student, lessons: Lessons, recipe: Recipe, epoch: int, device: torch.device, watch: Watch
) -> tuple[float, float]:
    """Train for an epoch; gives the mean losses of classes and of teachers."""
    # Of its own seed: an epoch is the same whether or not the same process ran those before it.
    seed = 100_000 * recipe.seed + epoch
    shuffle, draws = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    pixels, labels = lessons.pixels["train"], lessons.labels["train"]
    steps = max(1, len(labels) // recipe.batch_size)
    totals = torch.zeros(2, device=device)
    student.net.train()
    with seeded(seed, device):
        batches = torch.randperm(len(labels), generator=shuffle).tensor_split(steps)
        for step, index in enumerate(watch(batches, f"epoch {epoch + 1} of {recipe.epochs}")):
            for group in student.optimizer.param_groups:
                group["lr"] = recipe.lr * lr_factor((epoch + step / steps) / recipe.epochs, SCHEDULE)
            images = random_crop(pixels[index].to(device).float().div_(255), recipe.size, (recipe.area, 1.0), draws)
            features = student.features(colour_jitter(images, recipe.jitter, draws))
            class_loss = functional.cross_entropy(
                student.net.head(features), labels[index].to(device), label_smoothing=recipe.label_smoothing
            )
            teacher_loss = torch.zeros((), device=device)
            for regressor, target in zip(student.regressors, lessons.targets, strict=True):
                distance = functional.mse_loss(regressor(features), target[index].to(device))
                teacher_loss = teacher_loss + distance / len(lessons.targets)
            student.optimizer.zero_grad(set_to_none=True)
            (class_loss + recipe.distill * teacher_loss).backward()
            student.optimizer.step()
            totals += torch.stack([class_loss.detach(), teacher_loss.detach()])
    class_mean, teacher_mean = (totals / steps).tolist()
    return class_mean, teacher_mean


def _accuracy(student: Student, lessons: Lessons, device: torch.device) -> float:
    """Share of val images, whole and at their own size, whose class is named."""
    student.net.eval()
    right = 0
    with torch.inference_mode():
        for pixels, labels in zip(lessons.pixels["val"].split(BATCH), lessons.labels["val"].split(BATCH), strict=True):
            logits = student.net.head(student.features(pixels.to(device).float().div_(255)))
            right += int((logits.argmax(1).cpu() == labels).sum())
    return right / len(lessons.labels["val"])


def _write(
    student: Student, name: str, lessons: Lessons, facts: dict[str, Any], out: Path, device: torch.device, say: Say
) -> None:
    with torch.no_grad():  # rounded first, so that the accuracy is that of the files
        for value in student.net.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half())
    accuracy = _accuracy(student, lessons, device)
    files = {f"{name}.safetensors": student.net.features, f"{name}.head.safetensors": student.net.head}
    for file, module in files.items():
        # Not the counters of batches, which nothing needs.
        state = {k: v.half().contiguous().cpu() for k, v in module.state_dict().items() if v.is_floating_point()}
        with whole_file(out / file) as temporary:
            save_file(
                state, temporary, {"classes": json.dumps(lessons.classes)} if module is student.net.head else None
            )
    facts |= {
        "val_accuracy": accuracy,
        "sha256": {file: hashlib.sha256((out / file).read_bytes()).hexdigest() for file in files},
        "bytes": {file: (out / file).stat().st_size for file in files},
        "device": devices.describe(device),
        "threads": torch.get_num_threads(),
        "finished_utc": provenance.utc(),
    } | provenance.code()
    with whole_file(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
    say(f"{name}: written to {out / name}.safetensors, val accuracy {accuracy:.1%}, {facts['seconds']:.0f} s")

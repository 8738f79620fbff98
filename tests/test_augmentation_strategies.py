"""The augmenting strategies: labels that are true to the pixels, the papers' transforms, policies of a matrix file, and
what the report shows of them."""

from __future__ import annotations

import base64
import functools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import TrivialAugmentWide, _apply_op

from bench import examples, registry, store
from bench.check import new_run, phantom_task
from bench.config import load
from bench.contract import Protocol, Task
from bench.errors import UsageError
from bench.executors import execute
from bench.finetune import task_loss
from bench.plan import make_plan
from bench.policies import POLICIES, augmented, policy_of
from bench.report.page import render
from bench.tune import tune
from tests.fake_results import row, write
from tests.small import CHECKOUT, matrix

drawn = functools.cache(phantom_task)
NAMES = ("augment_domain", "mixup", "cutmix", "trivial_augment")


def strategy(name: str):
    return registry.load_strategy(name, CHECKOUT)


def module(name: str):
    return registry._module(registry.source(name, CHECKOUT))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_classes(kind: str, count: int) -> Task:
    task = drawn(kind)
    return replace(task, info=replace(task.info, classes=tuple(map(str, range(count)))))


def mix(name: str, images: Tensor, labels: Tensor, task: Task, seed: int = 0) -> tuple[Tensor, Tensor]:
    return strategy(name).augment(images, labels, task, strategy(name).defaults(), seeded(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["multi-class", "multi-label"])
def test_every_image_is_drawn_for_alone_and_by_the_generator_alone(name: str, kind: str) -> None:
    task = drawn(kind)
    pixels, labels = task.train.batch(torch.arange(16))
    # For strategies that mix, halves that differ from each other but not within.
    images = (pixels[:1].repeat(16, 1, 1, 1).float() / 255).clone()
    images[8:] = pixels[1].float() / 255
    before = torch.random.get_rng_state()
    once, targets = mix(name, images, labels, task, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(once, mix(name, images, labels, task, 1)[0])
    assert not torch.equal(once, mix(name, images, labels, task, 2)[0])
    assert len({tuple(image.flatten().tolist()) for image in once}) >= 8
    assert (once.shape, once.dtype) == (images.shape, torch.float32)
    assert once.min() >= 0
    assert once.max() <= 1
    if name in ("augment_domain", "trivial_augment"):
        assert torch.equal(targets, labels)
    else:
        assert targets.shape == (16, task.outputs)


def test_mixups_labels_are_the_shares_of_its_pixels() -> None:
    # Pixel j belongs to image j alone, so what is left of it is that image's share.
    images = torch.eye(16).view(16, 1, 4, 4)
    mixed, targets = mix("mixup", images, torch.arange(16), with_classes("multi-class", 16))
    assert torch.allclose(targets, mixed.flatten(1), atol=1e-6)
    assert torch.allclose(targets.sum(1), torch.ones(16))
    own = targets.diagonal()
    assert len(set(own[own < 1].tolist())) > 8


def test_cutmixs_labels_are_the_areas_of_its_pixels_after_clipping() -> None:
    images = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 13, 13)
    mixed, targets = mix("cutmix", images, torch.arange(64), with_classes("multi-class", 64))
    areas = torch.stack([(mixed == value).float().mean((1, 2, 3)) for value in range(64)], dim=1)
    assert torch.allclose(targets, areas, atol=1e-6)
    for image, value in zip(mixed[:, 0], range(64), strict=True):
        rows, columns = torch.where(image != value)
        if len(rows):  # what is another image's is a rectangle
            assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    assert len(set(targets.diagonal().tolist())) > 20


def test_cutmixs_areas_are_distributed_as_those_of_the_papers_code() -> None:
    size, rng, official = 16, np.random.default_rng(0), []
    for _ in range(4000):
        cut = int(size * math.sqrt(1 - rng.beta(1, 1))) // 2
        x, y = rng.integers(size, size=2)
        left, right, up, down = np.clip([x - cut, x + cut, y - cut, y + cut], 0, size)
        official.append(1 - (right - left) * (down - up) / size**2)
    # Images without a partner of another label would count as whole ones.
    images = torch.arange(4000.0).view(-1, 1, 1, 1).expand(-1, 1, size, size)
    mixed, _ = mix("cutmix", images, torch.zeros(4000).long(), with_classes("multi-class", 2))
    own = (mixed == images).float().mean((1, 2, 3))
    assert own.mean() == pytest.approx(np.mean(official), abs=0.02)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.quantile(own, quantile) == pytest.approx(np.quantile(official, quantile), abs=0.05)


def test_mixups_shares_are_of_the_symmetric_beta_distribution() -> None:
    shares = module("mixup").beta(20_000, 0.2, seeded(0))
    assert 0 <= shares.min() < 1e-6
    assert 1 >= shares.max() > 1 - 1e-6
    lower = shares[shares < 0.5].double().numpy()  # near 1 many are 1, which is all that float32 can tell
    assert stats.kstest(lower, lambda share: 2 * stats.beta(0.2, 0.2).cdf(share)).pvalue > 0.01
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.01)
    assert float((shares < 0.1).float().mean() - (shares > 0.9).float().mean()) == pytest.approx(0, abs=0.015)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("kind", ["multi-label", "ordinal", "binary"])
def test_labels_of_every_kind_of_task_are_mixed_with_the_images(name: str, kind: str) -> None:
    task = drawn(kind)
    _, labels = task.train.batch(torch.arange(24))
    values = torch.arange(24.0)
    mixed, targets = mix(name, values.view(24, 1, 1, 1).expand(24, 1, 16, 16), labels, task)
    order = torch.randperm(24, generator=seeded(0))  # what the strategies draw first
    own = labels if kind == "multi-label" else torch.nn.functional.one_hot(labels, task.outputs).float()
    met = order != torch.arange(24)
    share = ((mixed.mean((1, 2, 3)) - values[order]) / (values - values[order]))[met][:, None]
    assert len(set(share.flatten().tolist())) > 8
    assert torch.allclose(targets[met], own[met] * share + own[order][met] * (1 - share), atol=1e-4)
    assert torch.equal(targets[~met], own[~met])


def test_the_loss_of_soft_labels_is_the_smoothed_cross_entropy() -> None:
    task, logits, hard = drawn("multi-class"), torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    one_hot = torch.nn.functional.one_hot(hard, 5).float()
    for smoothing in (0.0, 0.1):
        assert task_loss(logits, one_hot, task, smoothing) == pytest.approx(
            float(task_loss(logits, hard, task, smoothing)), abs=1e-6
        )
        soft = 0.3 * one_hot + 0.7 * one_hot.flip(0)
        smooth = soft * (1 - smoothing) + smoothing / 5
        wanted = -(smooth * logits.log_softmax(1)).sum(1).mean()
        assert task_loss(logits, soft, task, smoothing) == pytest.approx(float(wanted), abs=1e-6)


PAPER = {
    "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY",
    "rotate": "Rotate", "brightness": "Brightness", "color": "Color", "contrast": "Contrast",
    "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize", "autocontrast": "AutoContrast",
    "equalize": "Equalize", "identity": "Identity",
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augments_transforms_are_torchvisions(name: str, channels: int) -> None:
    trivial = module("trivial_augment")
    assert set(trivial.OPS) == set(PAPER)
    magnitudes, signed = TrivialAugmentWide()._augmentation_space(trivial.BINS)[PAPER[name]]
    pixels = torch.randint(40, 200, (1, channels, 40, 40), generator=seeded(0), dtype=torch.uint8)
    bins = (0, 7, 20, 29)
    signs = (1, -1, 1, -1)
    strength = torch.tensor([sign * at / 30 for at, sign in zip(bins, signs, strict=True)]).view(-1, 1, 1, 1)
    op = torch.full((4, 1, 1, 1), trivial.OPS.index(name))
    got = trivial.transformed(pixels.expand(4, -1, -1, -1).float() / 255, op, strength) * 255
    for image, at, sign in zip(got, bins, signs, strict=True):
        magnitude = float(magnitudes[at]) if magnitudes.ndim else 0.0
        if name in ("translate_x", "translate_y"):
            magnitude = -magnitude  # torchvision says where the image goes
        wanted = _apply_op(
            pixels[0], PAPER[name], sign * magnitude if signed else magnitude, InterpolationMode.BILINEAR, None
        )
        assert (image - wanted.float()).abs().max() < 2.1  # torchvision rounds down, its gray too


def test_trivial_augment_changes_each_image_by_its_own_transform_alone() -> None:
    trivial = module("trivial_augment")
    images = torch.randint(40, 200, (14, 3, 16, 16), generator=seeded(0)) / 255
    op, strength = torch.arange(14).view(14, 1, 1, 1), torch.full((14, 1, 1, 1), 0.5)
    together = trivial.transformed(images, op, strength)
    assert torch.equal(together[0], images[0])
    assert all((together[i] - images[i]).abs().max() > 0.01 for i in range(1, 14))
    for i in range(14):
        alone = trivial.transformed(images[i : i + 1], op[i : i + 1], strength[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-6)


def test_augment_domain_takes_the_policy_of_the_datasets_modality_or_of_the_matrix_file() -> None:
    domain = strategy("augment_domain")
    for kind, modality in (("multi-class", "histology"), ("ordinal", "fundus"), ("binary", "x-ray")):
        task = drawn(kind)
        pixels, labels = task.train.batch(torch.arange(8))
        images = pixels.float() / 255

        def seen(hparams, images=images, labels=labels, task=task):
            return domain.augment(images, labels, task, domain.defaults() | hparams, seeded(0))[0]

        assert torch.equal(seen({}), augmented(images, POLICIES[modality], seeded(0)))
        assert torch.equal(seen({"strength": 1.4}), augmented(images, POLICIES[modality].scaled(1.4), seeded(0)))
        assert torch.equal(seen({"policy": "oct"}), augmented(images, POLICIES["oct"], seeded(0)))
        table = {"rotate": 20, "gamma": 0.5}
        assert torch.equal(seen({"policy": table}), augmented(images, policy_of(table, ""), seeded(0)))
        assert torch.equal(seen({"policy": {}}), images)


@pytest.mark.parametrize("name", NAMES)
def test_training_images_are_augmented_and_no_others(name: str) -> None:
    base, batches, shown = strategy(name), [], []

    class Watching(type(base)):
        def augment(self, images, labels, task, hparams, generator):
            batches.append(images)
            changed = super().augment(images, labels, task, hparams, generator)
            shown.append(changed[0])
            return changed

        def finish(self, net, task, hparams, run):
            net.eval()
            with torch.inference_mode():
                wanted = net(run.prepare(task.val.pixels)).float()
            predictor = super().finish(net, task, hparams, run)
            with torch.inference_mode():
                assert torch.equal(predictor(task.val.pixels), wanted)
            return predictor

    task, run = drawn("multi-class"), new_run(protocol=Protocol(epochs=2, batch_size=16))
    Watching().fit(task, base.defaults(), run)
    known = {tuple(image.flatten().tolist()) for image in run.resized(task.train.pixels)}
    seen = [tuple(image.flatten().tolist()) for batch in batches for image in batch]
    assert len(seen) == 2 * len(task.train) == run.meter.images_seen
    assert set(seen) == known
    changed = [not torch.equal(a, b) for a, b in zip(torch.cat(batches), torch.cat(shown), strict=True)]
    assert sum(changed) > len(changed) / 2


MATRIX = """
[run]
strategies = ["augment_domain", "mixup"]
datasets = ["phantom-radiograph"]
sizes = [32]
[[backbone]]
model = "test_resnet"
weights = "random"
[settings.augment_domain]
"""


def plan_of(tmp_path: Path, settings: str):
    path = tmp_path / "mine.toml"
    path.write_text(MATRIX + settings)
    return make_plan(load(str(path)), CHECKOUT)


def test_a_matrix_file_may_give_a_policy(tmp_path: Path) -> None:
    table = "policy = { rotate = 10, horizontal_flip = 0.5 }\nstrength = { low = 0.1, high = 2 }\n"
    cell, other = plan_of(tmp_path, table).cells
    assert cell.fingerprint not in [c.fingerprint for c in plan_of(tmp_path, 'policy = "oct"').cells]
    assert other.fingerprint in [c.fingerprint for c in plan_of(tmp_path, "").cells]

    tried = []

    class Watching(type(strategy("augment_domain"))):
        def fit(self, task, hparams, run):
            tried.append(hparams)
            return lambda images: torch.rand(len(images), task.outputs)

    def search(done=()):
        run = new_run(protocol=Protocol(epochs=1, trials=4))
        return tune(Watching(), cell.settings, drawn("binary"), run, "cell", done, lambda new: None)

    trials = search()
    assert [t.hparams for t in trials] == tried
    assert all(h["policy"] == {"rotate": 10, "horizontal_flip": 0.5} for h in tried)
    assert tried[0] == {"lr": 1e-3, "policy": {"rotate": 10, "horizontal_flip": 0.5}, "strength": 1.0}
    assert len({h["strength"] for h in tried}) == 4
    assert json.loads(json.dumps(tried)) == tried
    assert [t.hparams for t in search(trials[:2])] == [t.hparams for t in trials]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("policy = { flip = 0.5 }", '[settings.augment_domain] policy: there is no transform "flip".'),
        ("policy = { rotat = 5 }", 'Did you mean "rotate"?'),
        ("policy = { rotate = -5 }", "policy: rotate = -5.0: must be a number, at least 0 and at most 180"),
        ('policy = "x-rays"', 'Did you mean "x-ray"?'),
        ("policy = { low = 1, high = 2 }", "a range, but policy is not a number"),
        ("strength = -1", "[settings.augment_domain] strength = -1.0: must be a number, at least 0"),
        ("lr = { rotate = 1 }", "lr = {'rotate': 1}: must be a number, or a range { low = .., high = .. }"),
        ('lr = "fast"', 'lr = "fast": must be a number, or a range'),
        ("policies = {}", 'no hyperparameter "policies". Did you mean "policy"?'),
    ],
)
def test_every_mistake_in_a_policy_is_named_before_anything_runs(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_of(tmp_path, settings)
    assert message in str(error.value)


def test_a_strip_shows_training_images_above_and_what_becomes_of_them_below() -> None:
    for kind in ("multi-class", "binary"):  # colour, gray
        task, run, base = drawn(kind, size=48), new_run(size=48), strategy("augment_domain")
        picture = examples.strip(base, task, base.defaults() | {"policy": {}}, run)
        assert picture.shape[:2] == (96, 8 * 48)
        assert np.array_equal(picture[:48], picture[48:])
        first = task.train.pixels[0].permute(1, 2, 0).numpy().squeeze()
        assert np.array_equal(picture[:48, :48], first)
        flipped = examples.strip(base, task, base.defaults() | {"policy": {"vertical_flip": 1}}, run)
        assert np.array_equal(flipped[48:], flipped[:48][::-1])


def test_a_run_keeps_the_strips_and_the_page_shows_those_that_may_be_passed_on(tmp_path: Path) -> None:
    results = tmp_path / "mine"
    given = matrix(
        results, strategies=("linear_probe", "mixup"), seeds=1, protocol=Protocol(epochs=1, trials=1, batch_size=64)
    )
    execute(make_plan(given, CHECKOUT), Console(quiet=True), "test", {})
    [path] = (results / "examples").iterdir()
    assert path == store.strip_path(results, "phantom-radiograph", "mixup")
    private = [row("npz:/home/me/scans.npz", "b", s, 0, 0.8, licence="unknown") for s in ("mixup", "scratch")]
    folder = write(tmp_path / "private", private)
    store.write(store.strip_path(folder, "npz:/home/me/scans.npz", "mixup"), path.read_bytes())

    html = render([results, folder], tmp_path / "page.html").read_text(encoding="utf-8")
    picture = base64.b64encode(path.read_bytes()).decode()
    strips = html[html.index('<section id="examples"') :]
    strips = strips[: strips.index("</section>")]
    assert strips.count("<img") == html.count(f'src="data:image/jpeg;base64,{picture}"') == 1
    assert 'alt="phantom-radiograph: a row of training images, and below it the same images after mixup"' in html
    assert Image.open(path).size == (384, 96)
    assert html.index('id="scores"') < html.index('id="examples"') < html.index('id="results"')

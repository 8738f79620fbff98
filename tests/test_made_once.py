"""What is shared between fits so that it is made once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench import probe, registry
from bench.backbones import build_features
from bench.check import BACKBONE, new_run, phantom_task
from bench.contract import Protocol
from bench.errors import Spoiled
from bench.images import predict
from bench.marks import mark_of
from bench.tune import tune
from tests.small import CHECKOUT


def test_networks_of_a_run_are_as_built_and_share_nothing() -> None:
    for backbone in (BACKBONE, replace(BACKBONE, model="bundled:resnet", weights="bundled:resnet")):
        run = new_run(backbone=backbone)
        for seed, pretrained in ((0, True), (0, True), (1, True), (1, False), (0, False)):
            one = run.fresh(seed).network(2, pretrained)
            built = build_features(backbone, seed, pretrained)
            assert one.features.training
            assert all(p.requires_grad for p in one.parameters())
            for name, value in built.state_dict().items():
                assert torch.equal(one.features.state_dict()[name], value), (backbone.label, seed, name)
            with torch.no_grad():
                for parameter in one.parameters():
                    parameter.zero_()  # what is shared would be so in the next one


def test_a_probe_is_solved_once_for_all_fits_that_start_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    monkeypatch.setattr(probe, "PENALTIES", (0.1,))
    original = probe._solved
    monkeypatch.setattr(probe, "_solved", lambda *given: solved.append(1) or original(*given))
    task, run = phantom_task("binary"), new_run()
    heads = []
    for seed in (0, 1):
        own = run.fresh(seed)
        net, rest = probe.probed_network(task, own)
        heads.append(net.head.weight.detach().clone())
        with torch.no_grad():
            net.head.weight.zero_()
        assert (own.meter.images_seen, rest.protocol.epochs) == (len(task.train), 1)
    assert len(solved) == 1
    assert torch.equal(*heads)
    smoothed = replace(run, protocol=Protocol(label_smoothing=0.3))
    assert not torch.equal(probe.probe_head(task, smoothed)[0], heads[0])
    assert len(solved) == 2


@pytest.mark.parametrize("name", ["linear_probe", "knn_probe", "svm_probe"])
@pytest.mark.usefixtures("own_cache")
def test_the_trials_of_a_probe_see_the_images_of_val_once(name: str) -> None:
    task, run = phantom_task("binary"), new_run(protocol=Protocol(epochs=1, trials=5))
    passed: list[int] = []
    run.frozen().register_forward_hook(lambda net, given, found: passed.append(len(found)))
    trials = tune(registry.load_strategy(name, CHECKOUT), {}, task, run, name, (), lambda new: None)
    assert [trial.state for trial in trials] == ["complete"] * 5
    features = len(task.train) + (len(task.val) if name == "linear_probe" else 0)
    assert sum(passed) == features + len(task.val)


@pytest.mark.usefixtures("own_cache")
def test_probes_of_other_strategies_and_seeds_see_no_image_again() -> None:
    task, run = phantom_task("binary"), new_run(protocol=Protocol(epochs=1))
    probes = [registry.load_strategy(name, CHECKOUT) for name in ("linear_probe", "svm_probe", "knn_probe")]
    fits = [one.fit(task, one.defaults(), run.fresh(seed)) for one in probes for seed in (0, 1)]
    passed: list[int] = []
    run.frozen().register_forward_hook(lambda net, given, found: passed.append(len(found)))
    again = [[predict(one, task.val) for one in fits] for _ in range(2)]
    assert sum(passed) == len(task.val)
    alone = [one(task.val.batch(torch.arange(len(task.val)))[0]) for one in fits]
    assert sum(passed) == (1 + len(fits)) * len(task.val)
    for found in again:
        assert all(map(torch.equal, found, alone))


def test_features_of_images_that_were_changed_are_not_kept_as_theirs() -> None:
    task, run = phantom_task("binary"), new_run()

    def darkened(images: Tensor) -> Tensor:
        return run.embed(images.fill_(0))

    dark = predict(darkened, task.val)
    as_it_is = predict(run.embed, task.val)
    assert not torch.equal(dark, as_it_is)
    assert torch.equal(predict(darkened, task.val), dark)
    pixels, _ = next(task.val.batches(4))
    assert mark_of(pixels) == (task.val.key, 0, 4)
    assert mark_of(pixels.clone()) is mark_of(pixels.add_(1)) is None
    run.embed(next(task.val.batches(len(task.val)))[0]).add_(1)
    with pytest.raises(Spoiled, match="shared features"):
        predict(run.embed, task.val)

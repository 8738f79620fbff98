"""Domain-specific BatchNorm and AdaBN: each domain has statistics of its own, and nothing else changes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.adaptation import second_of
from bench.adversarial import strength
from bench.check import BACKBONE, new_run, phantom_task, state_digest
from bench.contract import Backbone, Hparams, Protocol, Task
from bench.domain_norm import (
    LABELLED,
    SECOND,
    DomainNorm,
    convert,
    domain_prediction,
    in_domain,
    no_batch_norm,
    restore,
)
from bench.finetune import FineTune
from bench.images import Images
from bench.network import Network
from bench.prediction import Prediction, for_labelled, for_second
from bench.run import Run
from bench.train import make_optimizer
from tests.plugins import DEPTHWISE, LAYERNORM, module, strategy

SHORT = Protocol(epochs=2, trials=1, batch_size=8)


def small(kind: str, images: int = 16) -> Task:
    return phantom_task(kind, images=images)


def branches(net: nn.Module, domain: int) -> list[nn.Module]:
    return [norm.branches[domain] for norm in net.modules() if isinstance(norm, DomainNorm)]


def digest(net: nn.Module, domain: int) -> str:
    return state_digest(nn.ModuleList(branches(net, domain)))


def pixels(images: Images) -> Tensor:
    return images.batch(torch.arange(len(images)))[0]


def built(name: str, task: Task, run: Run, **changes: object) -> tuple[FineTune, Network, Hparams]:
    chosen = strategy(name)
    hparams = chosen.defaults() | changes
    return chosen, chosen.build(task, hparams, run), hparams


@pytest.mark.parametrize("backbone", [BACKBONE, DEPTHWISE], ids=["resnet", "depthwise"])
@pytest.mark.parametrize("domain", [LABELLED, SECOND])
def test_converting_and_restoring_is_the_identity(backbone: Backbone, domain: int) -> None:
    net = new_run(backbone=backbone).network(3)
    before, modules = copy.deepcopy(net.state_dict()), list(net.named_modules())
    convert(net)
    assert len(branches(net, LABELLED)) == sum(isinstance(m, _BatchNorm) for _, m in modules) > 0
    assert not any(isinstance(m, _BatchNorm) for m in net.children())
    restore(net, domain)
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
    assert [(name, type(m)) for name, m in net.named_modules()] == [(name, type(m)) for name, m in modules]
    if domain == LABELLED:
        assert all(ours is theirs for (_, ours), (_, theirs) in zip(net.named_modules(), modules, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_a_converted_network_gives_what_the_plain_one_gives(training: bool) -> None:
    plain = new_run().network(3)
    converted = copy.deepcopy(plain)
    convert(converted)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for domain in (LABELLED, SECOND):
        own = copy.deepcopy(plain).train(training)
        with in_domain(converted.train(training), [domain] * 6):
            assert torch.equal(converted(images), own(images))
        restored = copy.deepcopy(converted)
        restore(restored, domain)
        assert state_digest(restored) == state_digest(own)  # the statistics moved alike, in that branch alone


@pytest.mark.parametrize("name", ["regnetx_002", "repvgg_a0", "resnest14d"])
def test_any_timm_network_can_be_converted(name: str) -> None:
    import timm

    net = timm.create_model(name, num_classes=0).eval()
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = net(images)
        convert(net)
        with in_domain(net, [SECOND, SECOND]):
            assert torch.equal(net(images), plain)


def test_two_domains_in_one_batch_are_refused() -> None:
    net = new_run().network(3)
    convert(net)
    before = state_digest(net)
    images = torch.randn(4, 3, 32, 32)
    with pytest.raises(ValueError, match=r"domains \[0, 1\].*batch of its own"), in_domain(net, [0, 0, 1, 1]):
        net(images)
    with pytest.raises(ValueError, match="no domain was chosen"):
        net(images)
    with in_domain(net, [LABELLED] * 4):
        net(images)
    with pytest.raises(ValueError, match="no domain was chosen"):  # a batch's choice is not the next one's
        net(images)
    assert state_digest(net) != before


def test_the_branches_start_equal_and_drift_apart() -> None:
    task, run = small("shift"), new_run(protocol=SHORT)
    chosen, net, hparams = built("dsbn", task, run)
    start = digest(net, LABELLED)
    pretrained = [m for m in run.network(task.outputs).modules() if isinstance(m, _BatchNorm)]
    assert start == digest(net, SECOND) == state_digest(nn.ModuleList(pretrained))
    for _ in range(3):  # a block's last scale starts at 0 and passes no gradient on
        one_step(chosen, net, task, hparams, run)
    assert len({start, digest(net, LABELLED), digest(net, SECOND)}) == 3
    for first, second in zip(branches(net, LABELLED), branches(net, SECOND), strict=True):
        for name in ("running_mean", "running_var", "weight", "bias"):
            assert not torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("frozen", [LABELLED, SECOND])
def test_freezing_a_branch_leaves_its_hash_alone(frozen: int) -> None:
    class Half(type(strategy("dsbn"))):  # type: ignore[misc]
        def param_groups(self, net, task, hparams, run, epoch):  # type: ignore[no-untyped-def]
            held = {id(p) for branch in branches(net, frozen) for p in branch.parameters()}
            groups = super().param_groups(net, task, hparams, run, epoch)
            return [replace(group, params=[p for p in group.params if id(p) not in held]) for group in groups]

    task, run = small("shift"), new_run(protocol=SHORT)
    half = Half()
    hparams = half.defaults()
    net = half.build(task, hparams, run)
    start = {domain: digest(net, domain) for domain in (LABELLED, SECOND)}
    for _ in range(2):
        one_step(half, net, task, hparams, run)
    assert digest(net, frozen) == start[frozen]
    assert digest(net, 1 - frozen) != start[1 - frozen]


def test_a_batch_moves_its_own_branch_only() -> None:
    net = new_run().network(3).train()
    convert(net)
    start, images = digest(net, LABELLED), torch.randn(4, 3, 32, 32)
    with in_domain(net, [SECOND] * 4):
        net(images).sum().backward()
    assert digest(net, LABELLED) == start != digest(net, SECOND)
    assert all(p.grad is None for norm in branches(net, LABELLED) for p in norm.parameters())
    assert all(p.grad is not None for norm in branches(net, SECOND) for p in norm.parameters())


@pytest.mark.parametrize("kind", ["shift", "binary"])
def test_a_prediction_uses_the_branch_of_its_domain(kind: str) -> None:
    task, run = small(kind), new_run(protocol=SHORT)
    _, net, _ = built("dsbn", task, run)
    for norm in branches(net, SECOND):
        assert isinstance(norm, _BatchNorm)
        norm.running_mean = torch.full_like(norm.running_mean, 0.5)  # type: ignore[arg-type]
    plain = {}
    for domain in (LABELLED, SECOND):
        own = copy_without_memo(net, run, task)
        restore(own, domain)
        plain[domain] = run.predictor(own.eval())
    found = domain_prediction(net.eval(), task, run)
    images = pixels(task.val)
    with torch.inference_mode():
        assert not torch.equal(plain[LABELLED](images), plain[SECOND](images))
        assert torch.equal(found(images), plain[SECOND if kind == "shift" else LABELLED](images))
        for choose, domain in ((for_labelled, LABELLED), (for_second, SECOND)):
            chosen = choose(found, task.shift)
            assert isinstance(chosen, Prediction)
            assert torch.equal(chosen(images), plain[domain](images))
            assert torch.equal(chosen.embed(images), plain[domain].embed(images))  # type: ignore[misc]


def test_the_second_stage_learns_the_labels_of_the_mixture() -> None:
    """Its loss against the formula, at the start (the teacher's labels alone), half-way and at the end (its own)."""
    task, run = small("shift"), new_run(protocol=SHORT)
    dsbn = module("dsbn")
    _, net, hparams = built("dsbn", task, run)
    net.memo["teacher"] = dsbn.frozen_copy(net, task, run)
    with torch.no_grad():  # a teacher of another opinion
        net.memo["teacher"].head.weight.normal_(generator=torch.Generator().manual_seed(1))
    images, second = run.prepare(pixels(task.train)[:8]), run.prepare(pixels(second_of(task))[:8])
    labels = task.train.labels[:8]
    net.train()
    kept = copy.deepcopy(net.state_dict())
    for progress in (0.0, 0.05, 1.0):
        net.load_state_dict(kept)
        net.memo["second"].drawn, net.memo["progress"] = torch.arange(8), progress
        found = dsbn.SelfTaught().loss(net, images, labels, task, hparams, run)
        net.load_state_dict(kept)
        with in_domain(net, [LABELLED] * 8):
            ours = net(images)
        with in_domain(net, [SECOND] * 8):
            theirs = net(second)
        with in_domain(net.memo["teacher"], [SECOND] * 8):
            taught = net.memo["teacher"](second)
        share = 2 / (1 + np.exp(-10 * progress)) - 1
        wanted = ((1 - share) * taught + share * theirs).argmax(1)
        if progress == 0:
            assert torch.equal(wanted, taught.argmax(1))
            assert not torch.equal(wanted, theirs.argmax(1))
        log = torch.log_softmax(theirs, 1)[torch.arange(8), wanted]
        assert found.item() == pytest.approx((nn.functional.cross_entropy(ours, labels) - log.mean()).item(), rel=1e-5)


@pytest.mark.parametrize(("kind", "stages"), [("shift", 2), ("multi-label", 1)])
def test_dsbn_spends_its_epochs_in_stages(kind: str, stages: int) -> None:
    task, run = small(kind), new_run(protocol=replace(SHORT, epochs=4, batch_size=16))
    reported: list[int] = []
    own = run.fresh(3, lambda epoch, auc, loss: reported.append(epoch))
    chosen = strategy("dsbn")
    chosen.fit(task, chosen.defaults(), own)
    assert own.meter.images_seen == 4 * len(task.train)
    assert len(own.meter.curve) == 4
    assert len(own.meter.disc_acc) == 4 // stages
    assert all(0 <= accuracy <= 1 for accuracy in own.meter.disc_acc)
    assert reported == list(range(4 // stages))


def test_the_teacher_stays_as_it_was_at_half_time(monkeypatch: pytest.MonkeyPatch) -> None:
    task, run = small("shift"), new_run(protocol=SHORT)
    dsbn, seen = module("dsbn"), []
    made = dsbn.frozen_copy

    def kept(net: Network, task: Task, run: Run) -> Network:
        teacher: Network = made(net, task, run)
        seen.append((teacher, state_digest(teacher), state_digest(net), net))
        return teacher

    monkeypatch.setattr(dsbn, "frozen_copy", kept)
    chosen = strategy("dsbn")
    chosen.fit(task, chosen.defaults(), run)
    [(teacher, made_of, at_half_time, net)] = seen
    assert state_digest(teacher) == made_of == at_half_time != state_digest(net)


@pytest.mark.parametrize("kind", ["shift", "binary"])
def test_adabn_equals_statistics_by_hand(kind: str) -> None:
    """Layer by layer in double precision: what reaches a BatchNorm, its mean and variance in each batch, and what
    leaves it, normalised by them; the mean over the batches is the layer's statistic."""
    task, run = small(kind, images=20), new_run(protocol=SHORT)
    chosen, net, hparams = built("adabn", task, run)
    net.requires_grad_(False)
    fitted = state_digest(net)
    found = chosen.finish(net, task, hparams, run)
    domain = second_of(task) if kind == "shift" else task.train
    own = copy.deepcopy(net)
    by_hand(own, domain, run)
    images = pixels(task.val)
    with torch.inference_mode():
        assert torch.allclose(found(images), run.predictor(own.eval())(images), rtol=1e-3, atol=1e-5)
        assert not torch.allclose(found(images), run.predictor(net.eval())(images), rtol=1e-2)
        if kind == "shift":  # source images keep the source's statistics
            assert torch.equal(for_labelled(found, task.shift)(images), run.predictor(net.eval())(images))
    assert state_digest(net) == fitted


def test_adabn_keeps_scales_and_shifts() -> None:
    task, run = small("shift"), new_run(protocol=SHORT)
    _, net, _ = built("adabn", task, run)
    adapted = copy.deepcopy(net)
    module("adabn").reestimate_norms_on(adapted, second_of(task), run)
    for (name, before), (_, after) in zip(net.named_parameters(), adapted.named_parameters(), strict=True):
        assert torch.equal(before, after), name
    changed = [
        n for (n, a), (_, b) in zip(net.named_buffers(), adapted.named_buffers(), strict=True) if not torch.equal(a, b)
    ]
    assert changed == [name for name, _ in net.named_buffers()]


@pytest.mark.parametrize("name", ["dsbn", "adabn", "tent"])
def test_a_network_without_batch_norm_is_skipped_with_a_true_reason(name: str) -> None:
    info = small("shift").info
    assert strategy(name).applies(info, BACKBONE) is None
    assert strategy(name).applies(info, DEPTHWISE) is None
    reason = strategy(name).applies(info, LAYERNORM)
    assert reason == no_batch_norm(LAYERNORM) == "test_convnext random has no BatchNorm with moving statistics"
    assert not any(isinstance(m, _BatchNorm) for m in new_run(backbone=LAYERNORM).network(2).modules())


def one_step(chosen: FineTune, net: Network, task: Task, hparams: Hparams, run: Run) -> None:
    """A step of the optimizer, in the modes of an epoch."""
    optimizer = make_optimizer(net, chosen.param_groups(net, task, hparams, run, 0), run.protocol, None)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    chosen.modes(net)
    net.memo["progress"] = 0.5
    net.memo["strength"].fill_(strength(0.5))
    chosen.loss(net, run.prepare(pixels(task.train)[:8]), task.train.labels[:8], task, hparams, run).backward()
    optimizer.step()


def copy_without_memo(net: Network, run: Run, task: Task) -> Network:
    own = run.network(task.outputs)
    convert(own)
    own.load_state_dict(net.state_dict())
    return own


def by_hand(net: Network, images: Images, run: Run) -> None:
    """Give each BatchNorm the statistics of the images, one layer after the other, with no use of its own forward."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(run.seed))
    count = -(-len(images) // run.protocol.batch_size)
    batches = [run.prepare(images.batch(index)[0]) for index in order.tensor_split(count)]
    statistics: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def normalised(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        assert isinstance(norm, _BatchNorm)
        maps = inputs[0].double()
        rows = maps.permute(1, 0, 2, 3).flatten(1).numpy()
        mean, var = torch.from_numpy(rows.mean(1)), torch.from_numpy(rows.var(1))
        statistics.setdefault(norm, []).append((mean, torch.from_numpy(rows.var(1, ddof=1))))
        unit = (maps - mean[:, None, None]) / torch.sqrt(var + norm.eps)[:, None, None]
        scaled = unit * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
        activate = getattr(norm, "act", nn.Identity())
        return activate(scaled.float())  # type: ignore[no-any-return]

    norms = [m for m in net.eval().modules() if isinstance(m, _BatchNorm)]
    hooks = [norm.register_forward_hook(normalised) for norm in norms]
    with torch.no_grad():
        for batch in batches:
            net(batch)
    for hook in hooks:
        hook.remove()
    for norm, seen in statistics.items():
        assert isinstance(norm, _BatchNorm)
        norm.running_mean = torch.stack([mean for mean, _ in seen]).mean(0).float()
        norm.running_var = torch.stack([var for _, var in seen]).mean(0).float()

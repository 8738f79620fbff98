"""The one training loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench import clock
from bench.best import Best, margin_of
from bench.contract import Hparams, Predictor, Protocol, Task
from bench.errors import Diverged
from bench.images import Images, predict
from bench.metrics import auc, probabilities
from bench.network import Network
from bench.parts import backward
from bench.prediction import for_labelled
from bench.prefix import Activations, activations, skipping
from bench.replay import Replay
from bench.run import Run
from bench.validation import validated

if TYPE_CHECKING:
    from bench.finetune import FineTune, Group


def train(net: Network, strategy: FineTune, task: Task, hparams: Hparams, run: Run) -> None:
    """Train `net` in place for the run's epochs and leave it at the best of those that are validated
    (bench.validation), by bench.best. In a shift task, whose val is not of the domain that counts, at its last: val
    would choose an epoch before the adaptation.

    Raises Diverged on a non-finite loss, optuna.TrialPruned when the tuner ends the trial."""
    from bench.finetune import Step, plain, steady

    protocol = run.protocol
    shuffle = torch.Generator().manual_seed(run.seed)
    draws = torch.Generator(run.device).manual_seed(run.seed)
    steps_an_epoch = steps_of(len(task.train), protocol)
    planned = steps_an_epoch * protocol.epochs
    asked = validated(protocol.epochs, len(task.train), len(task.val))
    optimizer: torch.optim.Optimizer | None = None
    best = Best(margin_of(task, protocol))
    best_state: dict[str, Tensor] = {}
    best_epoch = failed = step = trained = 0
    parts = 1  # of a batch that does not fit in memory as a whole

    cached: Activations | None = None  # of the stages that are frozen
    modes: list[bool] = []

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        with run.autocast(), skipping(cached.skipped if cached else ()):
            inputs = images if cached else run.normalised(images)
            return strategy.loss(net, inputs, labels, task, hparams, run)

    def make_room() -> bool:
        """Let go of what is merely kept on the device: recorded steps, and what other fits can make anew."""
        return replayed.forget() or run.forget(cached.maps if cached else None)

    def take_step(index: Tensor, rates: Tensor) -> Tensor:
        """A step on the images at `index`, with a learning rate a group of parameters; gives the loss."""
        nonlocal parts
        assert optimizer is not None
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate if rate.is_cuda else rate.item()
        pixels, labels = task.train.batch(index)
        if cached:
            images = cached.batch(index)
        else:
            images, labels = strategy.augment(run.resized(pixels), labels, task, hparams, draws)
        with clock.network():
            loss, parts = backward(loss_of, images, labels, optimizer, parts, make_room)
            if protocol.clip:
                nn.utils.clip_grad_norm_(trainable, protocol.clip)
            optimizer.step()
        return loss

    answered = Replay(run.predictor(net).logits, run.device, recordable=plain(strategy))

    for epoch in range(protocol.epochs):
        groups = strategy.param_groups(net, task, hparams, run, epoch)
        trainable = [p for g in groups for p in g.params]
        previous, optimizer = optimizer, make_optimizer(net, groups, protocol, optimizer)
        strategy.modes(net)
        if optimizer is not previous:
            trained = max(trained, sum(p.numel() for p in net.parameters() if p.requires_grad))
            cached = activations(net, strategy, task, run)
        before, modes = modes, [module.training for module in net.modules()]
        if optimizer is not previous or modes != before:
            there = cached is not None or isinstance(task.train.pixels, Tensor)
            replayed = Replay(take_step, run.device, [draws], steady(strategy) and there)
        total = torch.zeros((), device=run.device)
        factors = [strategy.lr_factor((step + i) / planned, protocol) for i in range(steps_an_epoch)]
        rates = rates_of([[hparams["lr"] * factor * group.scale for group in groups] for factor in factors], run.device)
        # Equal shares rather than a short last batch.
        batches = torch.randperm(len(task.train), generator=shuffle).to(run.device).tensor_split(steps_an_epoch)
        for index, rate in zip(batches, rates, strict=True):
            strategy.before(net, len(index))
            total += replayed(index, rate)
            if parts > 1:
                run.meter.micro_batch = math.ceil(protocol.batch_size / parts)
            run.meter.images_seen += len(index)
            step += 1
            strategy.stepped(net, hparams, Step(step, steps_an_epoch, planned))
        if not torch.isfinite(total):  # asked once an epoch: asking each step would stall a GPU
            raise Diverged(f"the loss became {total.item()} in epoch {epoch + 1} at lr {hparams['lr']:.3g}")

        if epoch in asked:
            kept = strategy.candidate(net, task, run)
            predictor: Predictor = strategy.predictor(kept.eval(), task, run)
            if plain(strategy):
                predictor = lambda pixels: answered(pixels).clone()  # noqa: E731
            val_auc, val_loss = scores_on_val(predictor, task, f"epoch {epoch + 1} at lr {hparams['lr']:.3g}")
            failed += 1
            if best.takes(val_auc, val_loss) or task.shift:
                best_epoch, failed = epoch, 0
                state = kept.state_dict()
                best_state = best_state or {name: torch.empty_like(tensor) for name, tensor in state.items()}
                torch._foreach_copy_(list(best_state.values()), list(state.values()))
        run.meter.curve.append(val_auc)
        run.report(epoch, val_auc, val_loss)
        # Where val is large there are many epochs between two looks at it, and one look is not enough.
        if 0 < protocol.patience <= epoch - best_epoch and failed >= min(protocol.patience, 2) and not task.shift:
            break

    net.load_state_dict(best_state)
    net.requires_grad_(False)
    run.meter.params_total = sum(p.numel() for p in net.parameters())
    run.meter.params_trained = max(run.meter.params_trained, trained)


def steps_of(images: int, protocol: Protocol) -> int:
    """Steps of an epoch, whose batches are of equal size but for one image: BatchNorm needs two."""
    return max(1, min(math.ceil(images / protocol.batch_size), images // 2))


def validate(net: Network, task: Task, run: Run, when: str) -> tuple[float, float]:
    """AUC and mean loss on val, in eval mode. Raises Diverged, with `when`, on a non-finite logit."""
    return scores_on_val(run.predictor(net.eval()), task, when)


def scores_on_val(predictor: Predictor, task: Task, when: str) -> tuple[float, float]:
    """AUC and mean loss on val. Raises Diverged, with `when`, on a non-finite logit."""
    logits = predict(for_labelled(predictor, task.shift), task.val)
    if not torch.isfinite(logits).all():
        raise Diverged(f"logits on val became non-finite in {when}")
    return val_scores(logits, task.val, task)


def val_scores(logits: Tensor, val: Images, task: Task) -> tuple[float, float]:
    """AUC and mean task loss of logits on val."""
    from bench.finetune import task_loss

    probs = probabilities(logits.cpu().numpy(), task.info.kind)
    return auc(val.labels.cpu().numpy(), probs, task.info.kind), float(task_loss(logits, val.labels, task))


def rank(auc: float, loss: float) -> tuple[float, float]:
    """Higher for the better scores on val: by AUC, among equals by loss, and by loss alone where there is no AUC."""
    return (auc if math.isfinite(auc) else -math.inf, -loss)


def rates_of(steps: list[list[float]], device: torch.device) -> Tensor:
    """Learning rates [steps, groups]: float32 on a GPU, where a recorded step reads them; elsewhere float64 on the CPU,
    where optimizers take numbers."""
    rates = torch.tensor(steps, dtype=torch.float64)
    return rates.to(device, torch.float32) if device.type == "cuda" else rates


def lr_factor(progress: float, protocol: Protocol) -> float:
    """The learning rate's share of its peak after `progress` (0..1) of the planned steps."""
    if progress < protocol.warmup:
        # Half a step is no use at the very start: begin above zero.
        return max(progress / protocol.warmup, 0.01)
    if protocol.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (progress - protocol.warmup) / (1 - protocol.warmup)))
    if protocol.schedule == "step":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    return 1.0


def make_optimizer(
    net: nn.Module, groups: list[Group], protocol: Protocol, previous: torch.optim.Optimizer | None
) -> torch.optim.Optimizer:
    """An optimizer over `groups`, with everything else frozen. The previous epoch's is kept when the groups are the
    same; otherwise its moments are carried over for the parameters that train on."""
    chosen = {id(p) for g in groups for p in g.params}
    if previous is not None and [[id(p) for p in g["params"]] for g in previous.param_groups] == [
        [id(p) for p in g.params] for g in groups
    ]:
        return previous
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
        if id(parameter) not in chosen:
            parameter.grad = None
    tables = [
        {
            "params": g.params,
            "lr": 0.0,
            "weight_decay": protocol.weight_decay if g.weight_decay is None else g.weight_decay,
        }
        for g in groups
    ]
    optimizer: torch.optim.Optimizer
    on_gpu = next(net.parameters()).is_cuda  # where the step may be recorded
    if protocol.optimizer == "sgd":
        optimizer = torch.optim.SGD(tables, momentum=0.9, nesterov=True, fused=True)
    elif protocol.optimizer == "adam":
        optimizer = torch.optim.Adam(tables, fused=True, capturable=on_gpu)
    else:
        optimizer = torch.optim.AdamW(tables, fused=True, capturable=on_gpu)
    if previous is not None:
        for trained, moments in previous.state.items():
            if id(trained) in chosen:
                optimizer.state[trained] = moments
    return optimizer

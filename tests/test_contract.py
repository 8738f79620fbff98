"""Every strategy keeps every promise of the contract, on every kind of task and on networks of three families."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from rich.console import Console

from bench import registry
from bench.check import PHANTOMS, check_strategy, examine, phantom_task
from bench.contract import Backbone
from bench.errors import MedtransferError
from tests.small import CHECKOUT

NETWORKS = {
    "BatchNorm": Backbone("bundled:resnet", "bundled:resnet"),
    "LayerNorm": Backbone("test_convnext", "random"),
    "depthwise": Backbone("mobilenetv2_035", "random", cut=2),
}


@pytest.fixture(autouse=True)
def _narrow_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the same promises as a wide one, in a fifth of the time."""
    monkeypatch.setattr("bench.adversarial.HIDDEN", 32)


def grid() -> Iterator[ParameterSet]:
    """Every strategy x kind of task x network. By default each strategy meets one network on one kind of task,
    neighbours others; `tox -e contract`, and CI with it, runs the rest."""
    for n, name in enumerate(sorted(registry.strategies(CHECKOUT))):
        for k, kind in enumerate(PHANTOMS):
            for m, network in enumerate(NETWORKS):
                now = (m, k) == (n % len(NETWORKS), n // len(NETWORKS) % len(PHANTOMS))
                yield pytest.param(name, kind, network, marks=() if now else pytest.mark.grid)


@pytest.mark.parametrize(("name", "kind", "network"), list(grid()))
def test_strategy(name: str, kind: str, network: str) -> None:
    strategy = registry.load_strategy(name, CHECKOUT)
    task = phantom_task(kind)
    if reason := strategy.applies(task.info, NETWORKS[network]):
        pytest.skip(reason)
    findings = list(examine(strategy, task, NETWORKS[network]))
    assert len(findings) >= 7
    assert [(promise, broken) for promise, broken in findings if broken] == []


ADAPTING = [name for name, found in registry.strategies(CHECKOUT).items() if found.second_domain or found.transductive]


@pytest.mark.parametrize("name", sorted([*ADAPTING, "linear_probe", "source_only"]))
def test_strategy_on_a_shift(name: str) -> None:
    findings = list(examine(registry.load_strategy(name, CHECKOUT), phantom_task("shift")))
    assert len(findings) >= 8
    assert [(promise, broken) for promise, broken in findings if broken] == []


BROKEN = {
    "the same seed gives the same logits": """
    def loss(self, net, images, labels, task, hparams, run):
        import numpy.random
        return super().loss(net, images, labels, task, hparams, run) * numpy.random.default_rng().random()""",
    "the shared backbone is untouched": """
    def build(self, task, hparams, run):
        next(run.frozen().parameters()).add_(1.0)
        return super().build(task, hparams, run)""",
    "the images are untouched": """
    def fit(self, task, hparams, run):
        task.train.pixels[0] = 7
        return super().fit(task, hparams, run)""",
    "hyperparameters are JSON, an lr a float": """
    def defaults(self):
        return {"rate": 1e-3}""",
    "the strategy keeps no state": """
    def fit(self, task, hparams, run):
        self.last = object()
        return super().fit(task, hparams, run)""",
    "logits are finite float [N, K]": """
    def finish(self, net, task, hparams, run):
        return lambda images: super(Bad, self).finish(net, task, hparams, run)(images)[:, :1]""",
    "a prediction does not depend on those before it": """
    def finish(self, net, task, hparams, run):
        net.head.weight.requires_grad_(False)
        def predict(images):
            net.head.weight.mul_(1.01)
            return run.predictor(net.eval())(images)
        return predict""",
    "an image's logits do not depend on the others'": """
    def finish(self, net, task, hparams, run):
        return run.predictor(net.train())""",
    "what is frozen does not move": """
    def param_groups(self, net, task, hparams, run, epoch):
        from bench.finetune import Group
        return [Group(list(net.head.parameters()))]
    def loss(self, net, images, labels, task, hparams, run):
        net.features.train()
        return super().loss(net, images, labels, task, hparams, run)""",
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_strategy_that_breaks_a_promise_is_found_out(promise: str, tmp_path: Path) -> None:
    file = tmp_path / "strategies" / "bad.py"
    file.parent.mkdir()
    file.write_text(
        "from bench.finetune import FineTune\n\n\nclass Bad(FineTune):\n"
        f'    """Breaks a promise."""\n\n    name = "bad"\n    family = "fine-tuning"\n{BROKEN[promise]}\n'
    )
    [strategy] = registry.names_in(file).values()
    findings = dict(examine(strategy, phantom_task("binary")))
    assert findings.get(promise) or "KeyError" in findings.get("it runs", "")


def test_check_says_what_is_broken_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "raiser.py"
    bad.write_text(
        "import json\nfrom bench.finetune import FineTune\n\n\nclass Raiser(FineTune):\n"
        '    """Raises."""\n\n    name = "raiser"\n    family = "fine-tuning"\n\n'
        "    def build(self, task, hparams, run):\n        json.loads('{')\n"
    )
    assert not check_strategy(bad, Console(width=300))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("raiser on binary: BROKEN: it raises JSONDecodeError: ")
    assert said[0].endswith("(raiser.py:12)")
    file = tmp_path / "nothing.py"
    file.write_text("x = 1\n")
    with pytest.raises(MedtransferError, match=r"nothing\.py"):
        check_strategy(file, Console())

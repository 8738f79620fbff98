"""`medtransfer new`: a small strategy that works, to start from."""

from __future__ import annotations

import keyword
from pathlib import Path

from bench.errors import UsageError

STRATEGY = '''\
from bench.finetune import FineTune, Group


class {cls}(FineTune):
    """The head alone for one epoch, then the whole network. (Say here: the paper, what differs from it, the cost.)"""

    name = "{name}"
    family = "fine-tuning"

    def param_groups(self, net, task, hparams, run, epoch):
        head = Group(list(net.head.parameters()))
        return [head] if epoch == 0 else [head, Group(list(net.features.parameters()), scale=0.1)]
'''


def new_strategy(name: str, workspace: Path) -> Path:
    """Write strategies/NAME.py in the workspace and return its path; it passes `medtransfer check`.

    Raises UsageError where the name is no Python identifier or is taken."""
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise UsageError(
            f'"{name}" cannot be a strategy\'s name. Use letters, digits and underscores, such as head_first.'
        )
    path = workspace / "strategies" / f"{name}.py"
    if path.exists():
        raise UsageError(f"{path} exists. Choose another name, or edit that file.")
    from bench.registry import find

    if taken := find("strategies", workspace).files.get(name):
        raise UsageError(f'There is a strategy "{name}" in {taken}. Choose another name.')
    cls = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STRATEGY.format(cls=cls, name=name), encoding="utf-8")
    return path

"""How much of a network a strategy trains, for `medtransfer list strategies`: measured once, not claimed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import bench
from bench import registry
from bench.cache import cache_folder, whole_file
from bench.check import new_run, phantom_task
from bench.contract import Backbone, Protocol
from bench.run import seeded

NETWORK = Backbone("bundled:resnet", "bundled:resnet")
PROTOCOL = Protocol(epochs=2, trials=1, batch_size=4)


def trained_share(name: str, workspace: Path) -> float:
    """Parameters that the strategy trains, as a share of all of the predictor's, by its defaults on `NETWORK`: from a
    fit on 8 drawn images, remembered for as long as its file stays the same. Raises whatever its fit raises."""
    key = json.dumps([name, registry.source_hash(name, workspace), bench.ENGINE, NETWORK.label])
    kept = cache_folder("trained") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if not kept.exists():
        strategy, task = registry.load_strategy(name, workspace), phantom_task("binary", images=8)
        run = new_run(backbone=NETWORK, protocol=PROTOCOL)
        with seeded(run.seed, run.device):
            strategy.fit(task, strategy.defaults(), run)
        with whole_file(kept) as temporary:
            temporary.write_text(json.dumps(run.meter.params_trained / run.meter.params_total))
    return float(json.loads(kept.read_text()))

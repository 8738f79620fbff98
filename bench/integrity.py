"""`datasets.json` of a results folder: what was found in each dataset that was run, for the report."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

from bench import registry
from bench.audit import audit
from bench.errors import DataError
from bench.plan import Plan
from bench.report import audits
from bench.store import write

log = logging.getLogger(__name__)


def record(plan: Plan) -> None:
    """Audit the plan's datasets, those not yet in the file, and add them to it. Datasets that cannot be read are left
    to their cells' failed rows."""
    path = plan.matrix.results / audits.FILE
    known, unreadable = audits.read(plan.matrix.results)
    for sentence in unreadable:
        log.warning(sentence)
    for cell in plan.cells:
        key = f"{cell.dataset} {cell.size} px"
        if cell.error or known.get(key, {}).get("content_hash") == cell.hashes["data_hash"]:
            continue
        try:
            dataset = registry.open_dataset(
                cell.dataset, cell.data_root, cell.split_seed, cell.source_size, cell.workspace
            )
            known[key] = asdict(audit(dataset, cell.size)) | {"dataset": cell.dataset, "size": cell.size}
        except DataError:
            continue
    write(path, json.dumps(known, indent=1).encode())

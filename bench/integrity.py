"""`datasets.json` of a results folder: what was found in each dataset that was run, for the report."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

from bench import registry
from bench.audit import audit
from bench.errors import MedtransferError, reading
from bench.plan import Plan
from bench.report import audits
from bench.store import write

log = logging.getLogger(__name__)


def record(plan: Plan) -> None:
    """Audit the plan's datasets, those not yet in the file, and add them to it. Datasets that cannot be read are left
    to their cells' failed rows, and tried once."""
    path = plan.matrix.results / audits.FILE
    known, unreadable = audits.read(plan.matrix.results)
    for sentence in unreadable:
        log.warning(sentence)
    places = {(cell.dataset, cell.size): cell for cell in plan.cells if not cell.error}
    for (name, size), cell in places.items():
        key = f"{name} {size} px"
        if known.get(key, {}).get("content_hash") == cell.hashes["data_hash"]:
            continue
        try:
            with reading(name):
                dataset = registry.open_dataset(name, cell.data_root, cell.split_seed, cell.source_size, cell.workspace)
                known[key] = asdict(audit(dataset, size)) | {"dataset": name, "size": size}
        except MedtransferError as error:
            log.warning("not audited: %s", error)
    write(path, json.dumps(known, indent=1).encode())

"""`datasets.json` of a results folder: what was found in each dataset that was run, for the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from bench import registry
from bench.audit import audit
from bench.errors import DataError
from bench.plan import Plan
from bench.store import write


def record(plan: Plan) -> None:
    """Audit the plan's datasets, those not yet in the file, and add them to it. Datasets that cannot be read are left
    to their cells' failed rows."""
    path = plan.matrix.results / "datasets.json"
    known: dict[str, dict[str, Any]] = json.loads(path.read_bytes()) if path.is_file() else {}
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

"""What augmentation does: the pictures that a run made of each strategy's training images."""

from __future__ import annotations

import base64

from markupsafe import Markup

from bench.report.markup import paragraphs
from bench.report.section import Evidence, Section
from bench.store import strip_path


def section(evidence: Evidence) -> Section | None:
    """Those of datasets without a known licence, such as a user's own, stay out: pages are passed on, and they may show
    patients. None where there is no picture."""
    rows = evidence.rows
    public = rows[rows["licence"].notna() & (rows["licence"] != "unknown")]
    found = []
    for dataset, strategy in public.groupby(["dataset", "strategy"]).groups:
        paths = [path for folder in evidence.folders if (path := strip_path(folder, dataset, strategy)).is_file()]
        if paths:
            picture = base64.b64encode(paths[-1].read_bytes()).decode()
            found.append(
                Markup(
                    '<figure><img src="data:image/jpeg;base64,{}" alt="{}: a row of training images, and below it the '
                    'same images after {}"><figcaption><b>{}</b>{}</figcaption></figure>'
                ).format(picture, dataset, strategy, strategy, dataset)
            )
    if not found:
        return None
    above = "Above: training images. Below: the same images as a network is shown them, each time by another draw."
    return Section("examples", "What augmentation does", paragraphs([above], soft=True) + Markup("\n").join(found))

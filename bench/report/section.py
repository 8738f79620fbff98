"""What a part of the page is made from, and what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from bench.report.leaderboard import Leaderboard


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a page knows."""

    rows: pd.DataFrame
    """The current rows of all folders but those of the two below; the columns are documented in results/README.md."""
    trials: pd.DataFrame
    """As frames.read_trials gives them."""
    folders: tuple[Path, ...]
    runs: tuple[dict[str, Any], ...]
    """run.json of each folder."""
    board: Leaderboard
    """Over strategies."""
    ensembles: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The current rows of ensembles, with the same columns; may be empty."""
    imported: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Those of predictions made elsewhere; may be empty."""
    damaged: list[str] = field(default_factory=list)
    """A sentence for each file of predictions that cannot be read: the sections add those that they come upon, since
    reading all beforehand would take minutes where there are many."""

    @property
    def singles(self) -> pd.DataFrame:
        """All that may be a member of an ensemble."""
        return pd.concat([self.rows, self.imported]) if len(self.imported) else self.rows


@dataclass(frozen=True)
class Section:
    """One part of the page, under a heading of its own."""

    key: str
    """Its id, for links."""
    title: str
    body: Markup
    """Whatever came from outside is escaped."""

"""The results of the lab's own studies, which come with it: notebooks/results/*.csv, as frames for a page. No torch.

They are those of `pddm-lab compare`, at the settings that notebooks/results/README.md states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from pddm_lab.errors import RunError
from pddm_lab.figures.style import metric_of
from pddm_lab.files import shipped

FOLDER = "notebooks/results"
_COLUMNS = {
    "local-differences": ["dataset", "embedding", "protocol", "metric", "against", "rival", "rival's", "difference",
                          "±", "low", "high", "p"],
    "compare": ["dataset", "protocol", "method", "similarity", "metric", "value", "half", "seeds"],
    "versus": ["dataset", "protocol", "method", "similarity", "metric", "baseline", "difference", "half", "holm"],
    "search": ["dataset", "method", "settings"],
}  # fmt: skip
_ROW = ["method", "similarity"]


@dataclass(frozen=True)
class Shipped:
    """The results; shared, not to be changed."""

    leads: pd.DataFrame
    """How far local structure is ahead: as `panel.local_tables.differences_table` makes it."""
    means: pd.DataFrame
    """Every method of the comparison: as `statistics.summary` makes it."""
    against: pd.DataFrame
    """The same compared with the best baseline: as `statistics.compare_with_baseline` makes it."""
    settings: pd.DataFrame
    """Of each method, as the search chose them: dataset, method, settings."""

    def datasets(self) -> list[str]:
        """The data sets on which methods were compared."""
        return list(dict.fromkeys(self.means["dataset"]))

    def baseline(self, dataset: str) -> str:
        """The method that is the best baseline of a data set; it is ranked by D."""
        return str(self.against.loc[self.against["dataset"] == dataset, "baseline"].iloc[0])

    def results(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """Every method, ranked by each of its similarities, the best first.

        Returns:
            method, similarity, value, half, seeds, difference (to the best baseline), difference_half, p (after Holm's
            correction), baseline (whether it is the best one), settings.
        """
        table, against = (
            of[(of["dataset"] == dataset) & (of["protocol"] == protocol) & (of["metric"] == metric)]
            for of in (self.means, self.against)
        )
        against = against.rename(columns={"half": "difference_half", "holm": "p"})
        table = table.merge(against[[*_ROW, "difference", "difference_half", "p"]], on=_ROW, how="left")
        chosen = self.settings[self.settings["dataset"] == dataset].drop_duplicates("method").set_index("method")
        is_best = (table["method"] == self.baseline(dataset)) & (table["similarity"] == "euclidean")
        table = table.assign(baseline=is_best, settings=table["method"].map(chosen["settings"]))
        columns = ["value", "half", "seeds", "difference", "difference_half", "p", "baseline", "settings"]
        ascending = not metric_of(metric).larger_is_better
        return table.sort_values("value", ascending=ascending, kind="stable", ignore_index=True)[[*_ROW, *columns]]

    def sentence(self) -> str:
        """What the study says of local structure, in one sentence."""
        of = self.leads
        of = of[(of["embedding"] == "quick") & (of["metric"] == "map@r") & (of["against"] == "D")]
        of = of[~of["protocol"].str.contains(",")]
        surely = of[(of["low"] > 0) & (of["difference"] > of["±"])]
        low, high = surely["difference"].min(), surely["difference"].max()
        where = "all" if len(surely) == len(of) else f"{len(surely)} of"
        return (
            f"In the lab's own study, local structure L finds {low:.0f} to {high:.0f} points more MAP@R than D in "
            f"{where} {len(of)} comparisons, on {of['dataset'].nunique()} data sets."
        )


@cache
def read_shipped() -> Shipped:
    """The results that came with the lab.

    Raises:
        RunError: a file is missing or was changed.
    """
    tables = {}
    for name, columns in _COLUMNS.items():
        file = shipped(f"{FOLDER}/{name}.csv")
        try:
            tables[name] = pd.read_csv(file)[columns].replace({np.inf: np.nan})
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{file} can't be read: {error}. Install the lab again.") from error
    chosen = tables["search"]
    settings = chosen.assign(settings=chosen["settings"].str.strip("{}").str.replace("'", ""))
    return Shipped(tables["local-differences"], tables["compare"], tables["versus"], settings)

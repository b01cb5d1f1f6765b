"""Tables of recognition and transfer from a study: markdown to read, csv to compute with."""

from __future__ import annotations

from math import nan
from pathlib import Path

import pandas as pd

from pddm_lab.applications.few_shot import METHODS
from pddm_lab.applications.transfer import summary
from pddm_lab.figures import PROTOCOL_TITLES, style_of
from pddm_lab.files import write_file
from pddm_lab.similarities import PRETRAINED
from pddm_lab.study.cells import Study, table
from pddm_lab.study.tables import MEASURES, format_number, markdown

_TRANSFER = ("recall@1", "recall@4", "map@r", "nmi", "auc")


def write(study: Study, folder: Path | None = None) -> list[Path]:
    """Write recognise and transfer as .md, each with its .csv, if the study has them.

    Args:
        folder: to write to; None: `tables` in the study's folder.

    Returns:
        The files.
    """
    folder = folder or study.path / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    cells, written = table(study.path), []
    for part, name, page in (("recognition", "recognise", _recognise), ("transfer", "transfer", _transfer)):
        chosen = cells[cells["part"] == part]
        if chosen.empty:
            continue
        settings = ", ".join(f"{key} {value}" for key, value in study.info["settings"].get(part, {}).items())
        for suffix, text in ((".md", page(chosen, settings)), (".csv", chosen.to_csv(index=False))):
            write_file(folder / f"{name}{suffix}", text)
            written.append(folder / f"{name}{suffix}")
    return written


def _recognise(cells: pd.DataFrame, settings: str) -> str:
    lines = [
        "# Recognition from a few pictures of each class",
        "",
        "Accuracy in %: the mean over episodes ± half of its 95 % interval, which tells how much other episodes would"
        f" change it. Each row is one training, with the seed of its run. Settings: {settings}.",
        "",
        "Made by `papermill notebooks/recognise.ipynb out.ipynb -p run NAME -p study NAME`.",
    ]
    for (dataset, protocol), group in cells.groupby(["dataset", "protocol"], sort=False):
        shots = [metric.partition("@")[2] for metric in group["metric"].unique() if metric.startswith("accuracy@")]
        rows = []
        for (space, seed, method), cell in group.groupby(["method", "seed", "similarity"], sort=False):
            value = cell.set_index("metric")["value"]
            texts = {f"{k}-shot": format_number(value[f"accuracy@{k}"], value[f"half@{k}"], 100, 1) for k in shots}
            rows.append({"features": space, "seed": "–" if seed < 0 else seed, "method": METHODS[method], **texts})
        lines += ["", f"## {dataset}, {PROTOCOL_TITLES[protocol].lower()}", "", markdown(pd.DataFrame(rows))]
    return "\n".join(lines) + "\n"


def _transfer(cells: pd.DataFrame, settings: str) -> str:
    lines = [
        "# Models used on data that they weren't trained on",
        "",
        "In % except AUC: the mean over seeds ± half of its 95 % interval (Student's t). Known and unseen are the"
        f" classes of the target's own split. Settings: {settings}.",
        "",
        "Made by `papermill notebooks/transfer.ipynb out.ipynb -p source A -p target B -p study NAME`.",
    ]
    groups = ["protocol", "trained_on", "similarity"]
    places = {"known": 1, PRETRAINED: -1}
    cells = cells.sort_values(["protocol", "method"], key=lambda column: column.map(lambda name: places.get(name, 0)))
    for target, cell in cells.groupby("dataset", sort=False):
        rows = []
        for names, group in summary(cell.rename(columns={"dataset": "target", "method": "trained_on"})).groupby(
            groups, sort=False
        ):
            by = group.set_index("metric")
            half = by["high"] - by["value"]
            texts = {
                MEASURES[name][0]: format_number(by["value"].get(name, nan), half.get(name, nan), *MEASURES[name][1:])
                for name in _TRANSFER
            }
            named = {"classes": names[0], "trained on": names[1], "ranked by": style_of(names[2]).title}
            rows.append({**named, "seeds": by["seeds"].iloc[0], **texts})
        lines += ["", f"## On {target}", "", markdown(pd.DataFrame(rows))]
    return "\n".join(lines) + "\n"

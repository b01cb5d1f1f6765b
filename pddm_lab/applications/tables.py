"""What a study keeps of recognition and transfer as tables: to read (markdown), and to compute with (csv)."""

from __future__ import annotations

from math import nan
from pathlib import Path

import pandas as pd

from pddm_lab.applications.feature_spaces import PRETRAINED
from pddm_lab.applications.few_shot import METHODS
from pddm_lab.applications.transfer import summary
from pddm_lab.figures import PROTOCOL_TITLES, style_of
from pddm_lab.files import replacing
from pddm_lab.study.cells import Study, table
from pddm_lab.study.tables import format_number, markdown

_TRANSFER = {
    "recall@1": ("R@1", 100, 1), "recall@4": ("R@4", 100, 1), "map@r": ("MAP@R", 100, 1), "nmi": ("NMI", 100, 1),
    "auc": ("AUC", 1, 3),
}  # fmt: skip


def write(study: Study, folder: Path | None = None) -> list[Path]:
    """Write recognise and transfer as .md, each with its .csv, as far as the study has them.

    Args:
        study: that keeps them.
        folder: they go to; None: `tables` in the study's folder.

    Returns:
        The files.
    """
    folder = folder or study.path / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    cells, written = table(study.path), []
    for part, name, page in (("recognition", "recognise", _recognise), ("transfer", "transfer", _transfer)):
        found = cells[cells["part"] == part]
        if found.empty:
            continue
        settings = ", ".join(f"{key} {value}" for key, value in study.info["settings"].get(part, {}).items())
        for suffix, text in ((".md", page(found, settings)), (".csv", found.to_csv(index=False))):
            with replacing(folder / f"{name}{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(folder / f"{name}{suffix}")
    return written


def _recognise(cells: pd.DataFrame, settings: str) -> str:
    lines = [
        "# Recognition from a few pictures of each class",
        "",
        "Accuracy in %, the mean over episodes ± half of its 95 % interval: how far other episodes would move it. A"
        f" line is of one training; its seed is that of the run. Settings: {settings}.",
        "",
        "Made by `papermill notebooks/recognise.ipynb out.ipynb -p run NAME -p study NAME`.",
    ]
    for (dataset, protocol), rows in cells.groupby(["dataset", "protocol"], sort=False):
        shots = [metric.partition("@")[2] for metric in rows["metric"].unique() if metric.startswith("accuracy@")]
        found = []
        for (space, seed, method), of in rows.groupby(["method", "seed", "similarity"], sort=False):
            value = of.set_index("metric")["value"]
            texts = {f"{k}-shot": format_number(value[f"accuracy@{k}"], value[f"half@{k}"], 100, 1) for k in shots}
            found.append({"features": space, "seed": "–" if seed < 0 else seed, "method": METHODS[method], **texts})
        lines += ["", f"## {dataset}, {PROTOCOL_TITLES[protocol].lower()}", "", markdown(pd.DataFrame(found))]
    return "\n".join(lines) + "\n"


def _transfer(cells: pd.DataFrame, settings: str) -> str:
    lines = [
        "# Models used on what they weren't trained on",
        "",
        "In %, AUC aside: the mean over seeds ± half of its 95 % interval (Student's t). Known and unseen are the"
        f" classes of the target's own split. Settings: {settings}.",
        "",
        "Made by `papermill notebooks/transfer.ipynb out.ipynb -p source A -p target B -p study NAME`.",
    ]
    groups = ["protocol", "trained_on", "similarity"]
    places = {"known": 1, PRETRAINED: -1}
    cells = cells.sort_values(["protocol", "method"], key=lambda column: column.map(lambda name: places.get(name, 0)))
    for target, of in cells.groupby("dataset", sort=False):
        found = []
        for names, rows in summary(of.rename(columns={"dataset": "target", "method": "trained_on"})).groupby(
            groups, sort=False
        ):
            by = rows.set_index("metric")
            half = by["high"] - by["value"]
            texts = {
                title: format_number(by["value"].get(metric, nan), half.get(metric, nan), scale, digits)
                for metric, (title, scale, digits) in _TRANSFER.items()
            }
            named = {"classes": names[0], "trained on": names[1], "ranked by": style_of(names[2]).title}
            found.append({**named, "seeds": by["seeds"].iloc[0], **texts})
        lines += ["", f"## On {target}", "", markdown(pd.DataFrame(found))]
    return "\n".join(lines) + "\n"

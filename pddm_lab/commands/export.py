"""The commands `export` and `search-exported`: models that leave the lab."""

from __future__ import annotations

import dataclasses
import json as json_format
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from pddm_lab.commands.terminal import RunName, RunsRoot, print_table, printable, progress_bar
from pddm_lab.config import Count, typed_path
from pddm_lab.errors import RunError
from pddm_lab.similarities import EVERY


def export(
    run: RunName, format: Literal["onnx", "openvino", "executorch"] = "onnx",
    precision: Literal["32", "fp16", "int8"] = "32", out: str = "",
    gallery: Literal["", "catalogue", "unseen", "known", "none"] = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Write a run's model as files that need no torch: pictures to features, and pairs of features to scores.

    Where the run has a similarity on local structure, that is written too, in 32 bits in every format, with the
    neighbourhoods of the gallery.

    Args:
        format: onnx for onnxruntime and many others; openvino; or executorch for phones and small boards, in 32 bits.
        precision: Bits of the weights: 32, fp16, or int8, which computes in 8 bits too.
        out: Folder to write; empty: export/<format>-<precision> in the run's folder.
        gallery: Gallery whose items are copied, to search them with `search-exported`; empty: the catalogue if there is
            one, else unseen.
    """
    from pddm_lab.export.folder import Exported
    from pddm_lab.export.write import export_run
    from pddm_lab.runs.compare import find_run

    exported = find_run(run, runs_root)
    folder = typed_path(out) if out else exported.path / "export" / f"{format}-{precision}"
    chosen: str = gallery or [*exported.galleries(), "unseen"][0]
    with progress_bar() as report:
        export_run(exported, folder, format, precision, "" if chosen == "none" else chosen, report)
    content = Exported(folder).content
    size, parameters = content["model_bytes"], content["parameters"]
    print(f"Wrote {folder}: {size / 1e6:.2f} MB for {parameters:,} parameters ({size / parameters:.2f} bytes each).")
    how = "the largest difference from" if precision == "32" else "1 minus their cosine with"
    print(f"Compared with torch: {how} its features is {content['agreement']['features']:.2g}.")
    if content["gallery"]:
        print(_searched(content))
        print(f"To search it: pddm-lab search-exported {folder} IMAGE")


def _searched(content: dict[str, Any]) -> str:
    """What an export holds of a run's items, and how to write one of all, in a sentence or two."""
    run, name = printable(content["run"]), printable(content["gallery"])
    if name not in ("unseen", "known"):
        return f"The gallery is the {name} of {run}."
    more = f"`pddm-lab export {run} --gallery catalogue` copies all items of the run."
    return f"The gallery has the {name} classes of {run} alone, to measure with. {more}"


def search_exported(
    folder: Positional[Annotated[str, arg(metavar="FOLDER")]], image: Positional[Annotated[str, arg(metavar="IMAGE")]],
    gallery: str = "", by: Literal["", "score", "local"] = "", k: Count = 10, shortlist: Count = 100, json: str = "",
) -> None:  # fmt: skip
    """Search a gallery with a picture by an exported model. It needs no torch.

    Args:
        folder: Folder that `pddm-lab export` wrote.
        image: File of the picture.
        gallery: Folder with features.npy and items.parquet to search instead of the export's copy.
        by: score, the run's own similarity, or local, the one on local structure. Empty: local, if the export has it.
        k: Number of results.
        shortlist: How many of the nearest by distance are ranked by the score.
        json: File to write the results to.
    """
    from pddm_lab.data.images import verify
    from pddm_lab.export.folder import Exported
    from pddm_lab.export.search import search
    from pddm_lab.files import replacing

    exported = Exported(typed_path(folder))
    items = exported.gallery(typed_path(gallery) if gallery else None)
    picture = exported.prepared(verify(typed_path(image), shorter=exported.shorter))
    (query,), pretrained = exported.embed_both(picture[None])
    local = None if by == "score" or gallery else exported.local
    if by == "local" and local is None:
        raise RunError(
            f"{exported.path} can't rank by local structure: expected a run of the preset lab, exported with the "
            "gallery that is searched. Leave out --by."
        )
    shortlist = max(shortlist, k)
    matches = search(exported, query, items, k, shortlist, local, None if pretrained is None else pretrained[0])
    similarity = EVERY["local" if local else exported.content["similarity"]]
    sign = -1 if similarity.is_distance else 1
    head = ("rank", "id", "class", "D", similarity.letter, "rank by D")
    rows = [
        (one.rank, printable(one.id), printable(one.class_name), f"{one.distance:.4f}", f"{sign * one.score:.4f}",
         one.distance_rank)
        for one in matches
    ]  # fmt: skip
    print_table(head, rows)
    near = min(shortlist, len(items.ids))
    print(f"\nThe best of {len(items.ids):,} items by {similarity.letter}, among the {near} nearest by D.")
    print(f"The gallery is {printable(gallery)}." if gallery else _searched(exported.content))
    if json:
        with replacing(Path(typed_path(json))) as target:
            text = json_format.dumps([dataclasses.asdict(one) for one in matches], indent=1, ensure_ascii=False)
            target.write_text(text, encoding="utf-8")
        print(f"Written to {json}")

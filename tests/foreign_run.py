"""A run made elsewhere, whose texts try to make a browser fetch something or show a link."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import psutil

HOST = "evil.example"
BAIT = (
    f"![a](http://{HOST}/a.png) [b](http://{HOST}) http://{HOST}/c www.{HOST} a@{HOST} <img src='http://{HOST}/d'> "
    f"`![e](http://{HOST}/e)` `` ![f](//{HOST}/f) <https://{HOST}>"
)
NAME = f"50% a+b #1 ![g](http:{HOST}) www.{HOST} ` [h](http:{HOST})"


def replace(file: Path, text: str) -> None:
    """A file's new text; the old file may be linked from elsewhere, so it isn't changed."""
    file.unlink(missing_ok=True)
    file.write_text(text, encoding="utf-8")


def foreign_run(source: Path, root: Path, status: str = "finished") -> None:
    """A copy of a run as `NAME`, with bait in every text, and two launches with bait in their logs."""
    run = root / NAME
    shutil.copytree(source, run)
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    info["dataset"] |= {"name": f"folder:{BAIT}", "licence": BAIT, "attribution": BAIT}
    info |= {"status": status, "reason": BAIT if status == "failed" else "", "device": BAIT, "versions": {BAIT: BAIT}}
    replace(run / "run.json", json.dumps(info))
    replace(run / "notes.md", BAIT)
    for gallery in (path for path in (run / "gallery").iterdir() if path.is_dir()):
        items = pd.read_parquet(gallery / "items.parquet")
        items["class_name"] = BAIT + items["class_name"]
        (gallery / "items.parquet").unlink()
        items.to_parquet(gallery / "items.parquet", index=False)
        manifest = json.loads((gallery / "manifest.json").read_text(encoding="utf-8"))
        data = (gallery / "items.parquet").read_bytes()
        manifest["files"]["items.parquet"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest["map"]["reason"] = BAIT
        replace(gallery / "manifest.json", json.dumps(manifest))
    (root / ".launches").mkdir()
    for name, pid, log in (
        ("alive", os.getpid(), f"{BAIT.replace(':', '')}:  5%|  | 1/20 ["),
        ("gone", 2**22 - 1, BAIT),
    ):
        started = psutil.Process().create_time() + 1
        launch = {"name": f"{name} {NAME}", "pid": pid, "process_started": started}
        (root / ".launches" / f"{name} {NAME}.json").write_text(json.dumps(launch), encoding="utf-8")
        (root / ".launches" / f"{name} {NAME}.log").write_text(log, encoding="utf-8")

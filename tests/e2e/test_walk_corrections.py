"""A researcher's loop in the browser: find a wrong label, relabel it, train again with it, and see the gain."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from digit_pictures import write_digits
from no_maps import NoMaps
from walking import violations, wait_until_drawn

from pddm_lab.analysis.hardness import suspects
from pddm_lab.config import TrainConfig
from pddm_lab.dashboard_server import served_dashboard
from pddm_lab.data.splits import halves_by_hash
from pddm_lab.review.gain import gains, sentence
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.runs.run import Run

WRONG = "wrong.png"


@pytest.fixture(scope="module")
def root(digits_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runs' root with a short training on digits, one of which lies in the folder of another training class."""
    from pddm_lab.training import finish
    from pddm_lab.training.trainer import train

    folder = tmp_path_factory.mktemp("loop")
    pictures = write_digits(folder / "digits", 12)
    names = [str(number) for number in range(10)]
    trained = [name for name, trains in zip(names, halves_by_hash(names, 0), strict=True) if trains]
    source = sorted((pictures / trained[0]).iterdir())[0]
    source.rename(pictures / trained[1] / WRONG)
    config = replace(
        digits_config, dataset=f"folder:{pictures}", known_query_share=0.0, run_name="first",
        runs_root=str(folder / "runs"),
    )  # fmt: skip
    without_umap = folder / "without_umap"
    without_umap.mkdir()
    (without_umap / "umap.py").write_text('raise ImportError("Maps of principal components will do.")')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "start_map", NoMaps)
        train(config, progress=False)
        patch.setenv("PDDM_LAB_DATA", str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(without_umap), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield folder / "runs"


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served_dashboard(root) as address:
        yield address


def test_a_wrong_label_is_found_relabelled_and_trained_again(page, address: str, root: Path) -> None:
    first = Run.open(root / "first")
    right, wrong = _classes(first)
    mined = Mined.of(first.mined())
    suspected = suspects(mined, mined.pick("refit")).head(12).set_index("id")
    assert suspected.loc[f"{wrong}/{WRONG}", "named"] == right  # on the first page

    page.goto(f"{address}/quadruplets?run=first&view=suspects")
    wait_until_drawn(page)
    page.locator(f"[data-pick='{wrong}/{WRONG}']").first.click()
    page.wait_for_url(re.compile("item="))
    wait_until_drawn(page)
    page.locator(".st-key-review_suspect button").first.click()
    assert page.get_by_role("combobox", name="Right class").input_value() == right
    page.get_by_label("Why").fill("It is another digit")
    page.get_by_label("Why").press("Tab")
    page.get_by_role("button", name="Relabel").click()
    page.get_by_text(f"1 item relabelled as {right}.").wait_for()
    wait_until_drawn(page)
    assert violations(page) == []

    page.get_by_role("link", name="review and retrain").click()
    page.get_by_role("heading", name="1 corrected item").wait_for()
    wait_until_drawn(page)
    assert violations(page) == []
    page.get_by_role("button", name="Retrain with them").click()
    page.get_by_text("first-corrected is").first.wait_for()
    page.get_by_role("heading", name="with the corrections").wait_for(timeout=900_000)
    wait_until_drawn(page)

    later = Run.open(root / "first-corrected")
    assert later.status == "finished" and later.info["dataset"]["corrections"]["items"] == 1
    labels = later.gallery("catalogue").items.set_index("id")["class_name"]
    assert labels[f"{wrong}/{WRONG}"] == right
    measured = gains(first, later)
    best = next(one for one in measured if (one.similarity, one.measure) == ("pddm", "map@r"))
    headings = page.get_by_role("heading", name="with the corrections").all_inner_texts()
    assert headings[0] in [sentence(one) for one in measured if one.measure == "map@r"]
    assert f"{100 * best.before:.1f}" in page.locator(".pl-audit").inner_text()
    assert (Path(first.info["dataset"]["root"]) / wrong / WRONG).is_file()


def _classes(run: Run) -> tuple[str, str]:
    """The class of the digit that lies in a wrong folder, and the class of that folder."""
    names = [str(number) for number in range(10)]
    trained = [name for name, trains in zip(names, halves_by_hash(names, 0), strict=True) if trains]
    return trained[0], trained[1]

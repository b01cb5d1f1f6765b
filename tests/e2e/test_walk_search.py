"""What a person does on the Search page, compared with the run's files."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
from walking import query, wait_until_drawn

PASTE = """
([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0))
  const held = new DataTransfer()
  held.items.add(new File([bytes], name, { type: "image/png" }))
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: held, bubbles: true, cancelable: true }))
}
"""


def test_a_person_searches_by_picking_by_key_and_asks_why(page, address: str, digits_run) -> None:
    gallery = digits_run.gallery("known")
    queries = gallery.items.loc[gallery.rows("query"), "id"].tolist()
    page.goto(f"{address}/search?run=digits&protocol=known&item={queries[0]}")
    wait_until_drawn(page)
    results = page.locator(".pl-tile:has(.pl-rank)")
    assert results.count() == 36
    shown = results.evaluate_all("all => all.map(one => one.dataset.pick)")
    assert queries[0] not in shown
    row = gallery.index_of(queries[0])
    nearest, _ = gallery.search(gallery.features[row][None], 12, exclude=row)
    assert shown[:12] == gallery.items["id"].iloc[nearest[0]].tolist()

    results.nth(2).hover()
    page.locator(".pl-linked").first.wait_for()
    linked = page.locator(".pl-linked").evaluate_all("all => all.map(one => one.dataset.pick)")
    assert set(linked) == {shown[2]} and len(linked) == shown.count(shown[2]), "the same item in every column"
    results.nth(2).press("w")
    page.wait_for_function("location.search.includes('view=why')")
    wait_until_drawn(page)
    assert query(page)["why"] == shown[2]
    distance = float(np.linalg.norm(gallery.features[row] - gallery.features[nearest[0][2]]))
    assert page.get_by_text(f"D is {distance:.2f}; ").count() == 1
    assert page.locator(".pl-dims tbody tr").count() == 10
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    wait_until_drawn(page)
    assert page.get_by_text(f"D is {distance:.2f}; ").count() == 1

    page.keyboard.press("n")
    page.wait_for_function("item => decodeURIComponent(location.search).includes(item)", arg=queries[1])
    wait_until_drawn(page)
    assert "why" not in query(page)
    other = page.locator(".pl-small .pl-tile").nth(2)
    picked = other.get_attribute("data-pick")
    other.press("Enter")
    page.wait_for_function("item => decodeURIComponent(location.search).includes(item)", arg=picked)
    wait_until_drawn(page)
    assert page.get_by_text(picked, exact=True).count() == 1


def test_a_person_searches_with_pictures_of_their_own_and_with_parts(
    page, address: str, digits_run, tmp_path: Path
) -> None:
    gallery, root = digits_run.gallery("known"), Path(digits_run.info["dataset"]["root"])
    wanted, pasted = (str(gallery.items.loc[gallery.rows("gallery")[at], "id"]) for at in (7, 30))
    page.goto(f"{address}/search?run=digits&protocol=known&query=upload")
    wait_until_drawn(page)
    page.locator("input[type=file]").set_input_files(root / wanted)
    page.get_by_text("Its class is unknown").wait_for()
    wait_until_drawn(page)
    nearest = page.locator(".pl-tile:has(.pl-rank)").first
    assert nearest.get_attribute("data-pick") == wanted
    assert re.search(r"D 0\.0\d", nearest.inner_text())

    page.evaluate(PASTE, ["clip.png", base64.b64encode((root / pasted).read_bytes()).decode()])
    page.get_by_text("clip.png").wait_for()
    wait_until_drawn(page)
    assert nearest.get_attribute("data-pick") == pasted

    area = page.locator(".area").bounding_box()
    for event, share in (("move", 0.2), ("down", 0.2), ("move", 0.5), ("move", 0.8), ("up", 0.8)):
        at = (area["x"] + share * area["width"], area["y"] + share * area["height"])
        page.mouse.move(*at) if event == "move" else getattr(page.mouse, event)()
    page.wait_for_function("location.search.includes('crop=')")
    wait_until_drawn(page)
    box = [float(edge) for edge in query(page)["crop"].split(",")]
    np.testing.assert_allclose(box, [0.2, 0.2, 0.8, 0.8], atol=0.02)
    assert not re.search(r"D 0\.00", nearest.inner_text())
    page.locator(".area").press("Escape")
    page.wait_for_function("!location.search.includes('crop=')")
    wait_until_drawn(page)
    assert nearest.get_attribute("data-pick") == pasted

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_test_id("stAlert").filter(has_text="is not a picture the lab can read").wait_for()
    large = tmp_path / "large.png"
    large.write_bytes(bytes(18_000_001))
    page.locator("input[type=file]").set_input_files(large)
    page.get_by_text("large.png has 19 MB; expected a picture of at most 18 MB.").wait_for()

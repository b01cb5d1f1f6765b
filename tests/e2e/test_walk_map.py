"""What a person does on the Map page, in a real browser, on a real run: point, lasso, follow a link, press keys."""

from __future__ import annotations

import numpy as np
from walking import query, wait_until_drawn


def test_a_person_points_draws_a_lasso_follows_the_link_and_presses_keys(page, address: str, digits_run) -> None:
    gallery = digits_run.gallery("known")
    frame = gallery.map
    spread = max(np.ptp(frame["x"]), np.ptp(frame["y"]))
    places = ((frame[["x", "y"]] - frame[["x", "y"]].min()) / spread * 65535).to_numpy(float).round()
    missing: list[str] = []
    page.on("response", lambda response: missing.append(response.url) if response.status == 404 else None)
    page.goto(f"{address}/map?run=digits&protocol=known")
    stage = page.locator(f".stage[data-drawn='{len(gallery)}']")
    stage.wait_for()
    wait_until_drawn(page)
    painted = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(part => part)"
    )
    assert stage.locator("canvas.points").evaluate(painted)
    assert int(stage.get_attribute("data-named")) > 0
    assert stage.get_attribute("data-pictures") == "0"

    # Pointing at an item shows its class and its picture.
    row = loneliest(places)
    page.mouse.move(*pixel(stage, places[row]))
    page.locator(f".tip[data-row='{row}'] img").wait_for()
    assert gallery.items["class_name"][row] in page.locator(".tip").inner_text()
    assert page.locator(".tip img").evaluate("one => one.naturalWidth > 0 && one.alt != ''")

    # A lasso around it shows what lies inside, and nothing else.
    middle = places[row]
    away = np.sort(np.abs(places - middle).max(1))[12]
    corners = [middle + away * np.array(corner) for corner in ((-1, -1), (1, -1), (1.05, 1), (-1, 1.05))]
    page.keyboard.down("Shift")
    page.mouse.move(*pixel(stage, corners[0]))
    page.mouse.down()
    for corner in [*corners[1:], corners[0]]:
        page.mouse.move(*pixel(stage, corner), steps=6)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.get_by_text("inside the lasso").wait_for()
    wait_until_drawn(page)
    title = page.get_by_text("inside the lasso").inner_text()
    selected = inside(query(page)["lasso"], places)
    assert row in selected
    assert title.startswith(f"{len(selected):,} of {len(gallery):,} items")
    shown = page.locator(".pl-tile").evaluate_all("all => all.map(one => one.dataset.pick)")
    assert sorted(shown) == sorted(gallery.items["id"][selected])

    # Keys: zoom in, move to the next item, and pick it.
    from playwright.sync_api import expect

    before = stage.get_attribute("data-view")
    stage.focus()
    page.keyboard.press("+")
    expect(stage).not_to_have_attribute("data-view", before)
    for _ in range(3):
        page.keyboard.press("+")
    expect(stage).not_to_have_attribute("data-pictures", "0")
    page.keyboard.press("ArrowRight")
    page.locator(".tip img").wait_for()
    picked = str(gallery.items["id"][int(page.locator(".tip").get_attribute("data-row"))])
    page.keyboard.press("Enter")
    page.wait_for_function("item => decodeURIComponent(location.search).includes(item)", arg=picked)
    page.wait_for_function("() => location.search.includes('view=')")
    wait_until_drawn(page)
    page.get_by_text(picked, exact=True).wait_for()
    view = stage.get_attribute("data-view")

    # The link opens the same view in another window.
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    stage.wait_for()
    page.get_by_text("inside the lasso").wait_for()
    wait_until_drawn(page)
    assert page.get_by_text("inside the lasso").inner_text() == title
    np.testing.assert_allclose(numbers(stage.get_attribute("data-view")), numbers(view), atol=1)
    page.get_by_text(picked, exact=True).wait_for()

    # Clicking another item picks that one; Escape clears the selection.
    other = int(selected[0] if selected[0] != row else selected[1])
    page.locator("[data-do=fit]").click()
    expect(stage).to_have_attribute("data-view", before)
    page.mouse.click(*pixel(stage, places[other]))
    page.wait_for_function("item => !decodeURIComponent(location.search).includes(item)", arg=picked)
    wait_until_drawn(page)
    stage.focus()
    page.keyboard.press("Escape")
    page.get_by_text("inside the lasso").wait_for(state="detached")
    assert "lasso" not in query(page)
    assert missing == [], "a linked page looks for the server where it is"


def loneliest(places: np.ndarray) -> int:
    """The item that lies furthest from all others: no pointer can mistake it."""
    apart = np.abs(places[:, None] - places[None]).max(2)
    np.fill_diagonal(apart, np.inf)
    return int(apart.min(1).argmax())


def numbers(text: str) -> list[float]:
    """The numbers of an attribute."""
    return [float(part) for part in text.split()]


def pixel(stage, place: np.ndarray) -> tuple[float, float]:
    """Where a place of the grid lies in the window."""
    x, y, span = numbers(stage.get_attribute("data-view"))
    box = stage.evaluate(
        "one => { const box = one.getBoundingClientRect();"
        " return [box.left + one.clientLeft, box.top + one.clientTop, one.clientWidth, one.clientHeight] }"
    )
    scale = min(box[2:]) / span
    right, up = (float(place[axis] - (x, y)[axis]) * scale for axis in (0, 1))
    return box[0] + box[2] / 2 + right, box[1] + box[3] / 2 - up


def inside(lasso: str, places: np.ndarray) -> list[int]:
    """Rows inside a lasso, place by place."""
    corners = [tuple(map(int, corner.split("."))) for corner in lasso.split("_")]
    rows = []
    for row, (x, y) in enumerate(places):
        crossings = 0
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (ay > y) != (by > y):
                crossings += x < ax + (y - ay) * (bx - ax) / (by - ay)
        if crossings % 2:
            rows.append(row)
    return rows

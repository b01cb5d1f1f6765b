"""Local vs global: three exercises and a second act (stage.py), then a plane to try all of it oneself.

On the plane a PDDM unit trains in seconds, to compare S with D.
"""

import time
from typing import Any

import numpy as np
import streamlit as st
from app_pages.local_global import data, stage, text
from shared import shell
from shared.chart import chart
from shared.plain_text import plain

from pddm_lab import cards, figures
from pddm_lab.teaching.exercises import PARTS
from pddm_lab.teaching.point_sets import LAYOUTS, PlaneConfig, first_anchor, mesh, path, vector

# The plane keeps its shape at any width.
st.html("<style>.st-key-plane_frame { aspect-ratio: 1.58; }</style>")
LIVE = 0.5  # seconds between updates while training

shell.heading(
    "Local vs global",
    "The distance D uses one ruler everywhere. The PDDM score S also depends on where a pair lies. Predict what each "
    "will do, then see.",
    words=("S", "D", "unseen", "known"),
)
act = shell.choice(st.segmented_control, "Part of the lesson", PARTS, "act", label_visibility="collapsed")
if act != "plane":
    stage.show(act)
    st.stop()


def number(label: str, low: float, high: float, default: float, key: str, **options: Any) -> float:
    """An input for a number, kept in the URL. Whole ones are floats, too: an input of ints fails on `seed=1e999`."""
    shown: dict[str, Any] = {"step": 1.0, "format": "%.0f"} | options
    value = st.number_input(label, float(low), float(high), float(default), key=key, bind="query-params", **shown)
    return value if low <= value <= high else default


with st.container(horizontal=True, vertical_alignment="bottom"):
    titles = {name: layout.title for name, layout in LAYOUTS.items()}
    name = shell.choice(st.segmented_control, "Scene", titles, "scene")
    sees = shell.choice(
        st.segmented_control, "The unit sees", {"both": "u and v", "difference": "u alone"}, "sees",
        help="u is the difference of a pair, v its mean. Without v (W_v = 0), S depends on u alone.",
    )  # fmt: skip
    with st.popover("Training", icon=":material/tune:"), st.form("choices", border=False):
        help_text = "Sets the points, the initial weights and the batches."
        seed = int(number("Seed", 0, 9999, PlaneConfig.seed, "seed", help=help_text))
        hidden = int(number("Width of the layers", 2, 256, PlaneConfig.hidden, "hidden"))
        steps = int(number("Steps", 10, 5000, PlaneConfig.steps, "train_steps"))
        margin = number("Margin α", 0.05, 5.0, PlaneConfig.score_margin, "margin", step=0.05, format="%.2f")
        st.form_submit_button("Train", type="primary", width="stretch")
st.caption(LAYOUTS[name].summary)
config = PlaneConfig(name, sees == "both", seed, hidden, steps, round(margin, 2))
training = data.training(config)
scene, layout = training.scene, LAYOUTS[name]
watched, playing = training.running, "play_from" in st.session_state


def train_again() -> None:
    """Forget this training, so that the page starts it again."""
    data.training.clear(config)
    st.query_params.pop("step", None)


def play() -> None:
    """Play the training from its start, or pause."""
    if playing:
        del st.session_state["play_from"]
    else:
        st.session_state["play_from"] = time.monotonic()
        st.query_params["step"] = "0"


def go_to(row: int) -> None:
    """Make a point the anchor."""
    if st.query_params.get(f"anchor_{name}") != str(row):  # a write sends the whole URL and could undo a slider's
        st.query_params[f"anchor_{name}"] = str(row)
    if "show" in st.query_params:
        del st.query_params["show"]


def pick_anchor() -> None:
    """Make the clicked point the anchor."""
    points = st.session_state["plane"]["selection"]["points"]
    if points and "customdata" in points[0]:
        go_to(int(np.ravel(points[0]["customdata"])[0]))


def view() -> None:
    """Everything that changes with the step, the anchor and the pair."""
    if playing != ("play_from" in st.session_state) or watched != training.running:
        st.rerun()
    number = chosen_step()
    left, right = st.columns([5, 3], gap="medium")
    with right:
        pair, difference, at = chosen_pair()
    with left:
        the_plane(number, pair, difference)
    if number >= 0:
        with right:
            same_difference(number, difference, at)
        measures(number)


def chosen_step() -> int:
    """Show the progress of the training, then a slider over its steps. Returns the snapshot's number; -1: none yet."""
    if training.failed:
        st.error(plain(f"The training failed: {training.failed}"), icon=":material/error:")
    taken = [snapshot.step for snapshot in training.snapshots]
    last = len(taken) - 1
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if training.running:
            loss = f", loss {training.snapshots[last].loss:.3f}" if last > 0 else ""
            progress = f"Training: step {taken[last]:,} of {steps:,}{loss}" if taken else "Starting"
            st.progress(taken[last] / steps if taken else 0.0, text=progress)
            st.button("Stop", key="plane_stop", icon=":material/stop_circle:", on_click=training.stop)
            return last
        if not taken:
            return last
        if playing and time.monotonic() - st.session_state["play_from"] > 0.8 * stage.PLAY:
            shown = st.query_params.get("step", "")
            number = taken.index(int(shown)) + 1 if shown in map(str, taken) else last
            st.query_params["step"] = str(taken[min(number, last)])
            st.session_state["play_from"] = time.monotonic()
            if number >= last:
                del st.session_state["play_from"]
        stopped = "" if taken[last] == steps else f" (stopped at {taken[last]:,} of {steps:,})"
        titles = {str(step): f"{step:,}" for step in taken}
        step = shell.choice(st.select_slider, f"Training step{stopped}", titles, "step", str(taken[last]))
        label, icon = ("Pause", "pause") if playing else ("Play", "play_arrow")
        st.button(label, key="play", icon=f":material/{icon}:", on_click=play, help="Play the training from its start.")
        st.button("Train again", key="again", icon=":material/replay:", on_click=train_again)
    return taken.index(int(step))


def chosen_anchor() -> int:
    """The row of the anchor, from the URL."""
    default = first_anchor(scene)
    row = shell.linked_number(f"anchor_{name}", 0, len(scene.points), default)
    return row if row < len(scene.points) else default


def chosen_pair() -> tuple[np.ndarray, np.ndarray, float]:
    """Sliders for the pair. Returns its two ends, its difference, and the position of its mean on the path, 0 to 1."""
    st.markdown("**Same difference, different place**")
    at = st.slider("Move the mean", 0, 100, 0, key="mean", bind="query-params", format="%d %%") / 100
    with st.container(horizontal=True):
        length = st.slider("Length", 0.02, 2.0, layout.length, 0.02, key=f"length_{name}", bind="query-params")
        angle = st.slider("Angle", 0, 180, layout.angle, 5, key=f"angle_{name}", bind="query-params", format="%d°")
    difference = vector(length, angle)
    mean = path(scene)[round(100 * at)]
    return np.stack([mean - difference / 2, mean + difference / 2]), difference, at


def the_plane(number: int, pair: np.ndarray, difference: np.ndarray) -> None:
    """The plane, coloured by S to the anchor or by S of the pair's difference, and what S and D accept."""
    anchor = chosen_anchor()
    titles = {"anchor": "S to the anchor", "pair": "S of the pair, everywhere"}
    with st.container(horizontal=True, vertical_alignment="center"):
        show = shell.choice(st.segmented_control, "Show", titles, "show", label_visibility="collapsed")
        if show == "anchor":
            others = scene.held_out("unseen" if scene.unseen[anchor] else "known")
            place = int(np.searchsorted(others, anchor))
            step_to = {"Back": ("B", others[place - 1]), "Next": ("N", others[(place + 1) % len(others)])}
            for label, (shortcut, row) in step_to.items():
                st.button(label, shortcut=shortcut, key=label.lower(), on_click=go_to, args=(int(row),))
    if number < 0:
        figure, facts = figures.plane_neighbourhood(scene, anchor, None, 0, 0, pair=pair), {}
    else:
        seen = data.anchor_view(training, number, anchor)
        hover = text.hover(scene, anchor, seen.to_points)
        if show == "anchor":
            figure = figures.plane_neighbourhood(
                scene, anchor, seen.around, seen.threshold, seen.radius, pair=pair, hover=hover
            )
            facts = text.accepted_counts(seen)
        else:
            scores = seen.score_at(mesh()[2], difference)
            figure = figures.plane_everywhere(scene, scores, seen.threshold, pair=pair, hover=hover)
            facts = text.accepted_places(seen, scores, difference)
    with st.container(key="plane_frame"):
        alt = f"The points of {layout.title}, on a plane coloured by {titles[show]}"
        chart(figure, "plane", alt, on_select=pick_anchor, selection_mode="points", height="stretch")
    if facts:
        st.html(cards.facts(facts))
    st.caption(text.LEGENDS[show])


def same_difference(number: int, difference: np.ndarray, at: float) -> None:
    """S and D of the pair at its place, and along its path."""
    seen = data.anchor_view(training, number, chosen_anchor())
    scores, distance = seen.score_at(path(scene), difference), float(np.linalg.norm(difference))
    here = float(scores[round(100 * at)])
    with st.container(horizontal=True, gap="small"):
        for label, value, passed in (("S", here, here > seen.threshold), ("D", distance, distance < seen.radius)):
            st.metric(
                f"{label} of the pair", f"{value:.2f}".replace("-", "−"), "accepted" if passed else "rejected",
                delta_color="off", delta_arrow="off",
            )  # fmt: skip
    (u_x, u_y), (v_x, v_y) = np.abs(difference), path(scene)[round(100 * at)]
    st.caption(f"u = |a − b| = ({u_x:.2f}, {u_y:.2f}) · v = (a + b) / 2 = ({v_x:.2f}, {v_y:.2f})".replace("-", "−"))
    alt = f"S and D of one difference while its mean moves: S from {scores[0]:.2f} to {scores[-1]:.2f}, D constant"
    chart(figures.plane_along(scene, scores, seen.threshold, distance, seen.radius, at), "along", alt)


def measures(number: int) -> None:
    """Metrics of S and D on held-out points, at this step and through the training."""
    left, right = st.columns([5, 3], gap="medium")
    with left:
        st.markdown("**Through training** :gray[· positive pairs accepted where 1 % of the negative pairs are]")
        figure = figures.plane_steps(training.snapshots, training.distance, number)
        chart(figure, "through", "TPR at 1 % FPR of S and D on known and on unseen classes, by training step")
    with right:
        for protocol in ("known", "unseen"):
            st.markdown(f"**{figures.PROTOCOL_TITLES[protocol]}** :gray[· {text.counts(scene, protocol)}]")
            table = text.table(training, number)
            st.html(cards.metrics_table(table, protocol, metrics=("recall@1", "auc", "tpr@1%fpr")))


st.fragment(view, run_every=LIVE if watched else stage.PLAY if playing else None)()
if training.snapshots and not watched:
    text.lesson(training)

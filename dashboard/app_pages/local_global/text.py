"""The texts of the page Local vs global, with the numbers of the training it shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.local_global.data import AnchorView, PlaneTraining
from shared import shell

from pddm_lab.teaching.point_sets import LAYOUTS, PointSet

UNIT = (
    (r"u = \lvert a - b \rvert", "u = (a - b).abs()", "How far apart a and b are on each axis; the same if swapped."),
    (r"v = (a + b) / 2", "v = (a + b) / 2", "Where the pair lies."),
    (r"u' = \mathrm{norm}(\mathrm{relu}(W_u u + b_u))", "u_hidden",
     "Layer `unit.difference`: features of the difference, scaled to length 1."),
    (r"v' = \mathrm{norm}(\mathrm{relu}(W_v v + b_v))", "v_hidden",
     "Layer `unit.position`: features of the position, scaled to length 1. *u alone* sets $W_v = 0$."),
    (r"c = \mathrm{relu}(W_c [u'; v'] + b_c)", "joint", "Layer `unit.joint`: combines difference and position."),
    (r"S = W_s c + b_s", "self.score(joint)", "One unbounded number. Larger means more similar."),
    (r"i, j, k, l", "mine(embeddings, labels, similarity, strategy)",
     "For each $i$: its least similar positive $j$; negative $k$ most similar to $i$, and $l$ most similar to $j$."),
    (r"E_m = \max(0, \alpha + S_{ik} - S_{ij}) + \max(0, \alpha + S_{jl} - S_{ij})",
     "double_header_hinge(s_ij, s_ik, s_jl, score_margin)",
     r"The positive pair must score higher than both negative pairs by at least $\alpha$."),
)  # fmt: skip
"""The unit and its training: formula, code, and an explanation."""
TASKS = (
    ("One difference, two places",
     "Move the mean from dense to sparse. D does not change. S rejects the pair between two dense classes and accepts "
     "it inside a sparse one. Then set the unit to see u alone and move the mean again: now S does not change either.",
     {"scene": "density"}),
    ("One ruler for crossing stripes",
     "The colour shows S of a horizontal difference. It is high on the left, where it runs along the stripes, and low "
     "on the right, where it crosses them. Turn the angle to 90° and the sides swap. No single ruler can do both.",
     {"scene": "grains", "show": "pair"}),
    ("What u can't see",
     "Turn the angle from 45° to 135°, from along the stripes to across them. S stays the same, because |a − b| is the "
     "same. In the lab the network can learn features that avoid this. Here the points are fixed.",
     {"scene": "diagonals", "show": "pair"}),
)  # fmt: skip
"""Tasks for a class: title, instructions, and the view to start from."""

LEGENDS = {
    "anchor": "Click a point to make it the anchor. Small points are for training, large ones are held out. Classes "
    "drawn as open points are never trained on. S and D each accept 1 % of the negative pairs.",
    "pair": "The colour shows S of the pair a, b if its mean were there. The slider moves the mean along the dashed "
    "line. Click a point to see S around it.",
}
"""How to read the plane, by what it shows."""


def hover(scene: PointSet, anchor: int, scores: np.ndarray) -> list[str]:
    """A line per point: its class, and its S and D to the anchor."""
    distances = np.linalg.norm(scene.points - scene.points[anchor], axis=1)
    return [
        f"class {label}, S {score:.2f}, D {distance:.2f}"
        for label, score, distance in zip(scene.labels, scores, distances, strict=True)
    ]


def accepted_counts(view: AnchorView) -> dict[str, str]:
    """How many points S and D accept as the anchor's class."""
    return {
        name: f"accepts {counts.own} of {counts.own_total} points of its class and {counts.others} of "
        f"{counts.others_total} others"
        for name, counts in view.accepted().items()
    }


def accepted_places(view: AnchorView, scores: np.ndarray, difference: np.ndarray) -> dict[str, str]:
    """Where on the plane S and D accept the pair's difference."""
    share = 100 * float((scores > view.threshold).mean())
    by_d = "everywhere" if np.linalg.norm(difference) < view.radius else "nowhere"
    return {"S": f"accepts this difference on {share:.0f} % of the plane", "D": f"accepts it {by_d}"}


def counts(scene: PointSet, protocol: str) -> str:
    """How many points and classes a protocol measures on."""
    rows = scene.held_out(protocol)
    return f"{len(rows)} held-out points, {len(np.unique(scene.labels[rows]))} classes"


def table(training: PlaneTraining, number: int) -> pd.DataFrame:
    """The measurements of S and D at a snapshot, in the columns that `metrics_table` expects."""
    snapshot = training.snapshots[number]
    measured = {"euclidean": training.distance, "pddm": {"known": snapshot.known, "unseen": snapshot.unseen}}
    rows = [
        ("plane", protocol, similarity, metric, value)
        for similarity, protocols in measured.items()
        for protocol, measurement in protocols.items()
        for metric, value in measurement.metrics.items()
    ]
    return pd.DataFrame(rows, columns=["run", "protocol", "similarity", "metric", "value"])


def lesson(training: PlaneTraining) -> None:
    """The text below the plane: tasks, and the theory for those who open it."""
    st.header("Tasks for a class", anchor=False)
    for number, (side, (title, text, query)) in enumerate(zip(st.columns(3, gap="medium"), TASKS, strict=True)):
        with side.container(border=True, height="stretch"):
            st.markdown(f"**{number + 1}. {title}**")
            st.markdown(text)
            st.button("Set up", key=f"task_{number}", on_click=_set_up, args=(query,))
    place = shell.unfolded("Theory: rulers, their limits, and the unit step by step", "theory")
    if place is None:
        return
    with place:
        left, right = st.columns(2, gap="large")
        for side, text in zip((left, right, left, right), paragraphs(training), strict=True):
            side.markdown(text.replace(" %", "\u00a0%"))
        rows = "\n".join(f"| ${formula}$ | `{code}` | {words} |" for formula, code, words in UNIT)
        st.markdown(f"| Formula | In `pddm.py`, `miner.py`, `losses.py` | In words |\n|---|---|---|\n{rows}")


def _set_up(view: dict[str, str]) -> None:
    """Reset the page to the default view of a scene, with a task's settings."""
    for name in ("sees", "step", "show", f"anchor_{view['scene']}"):
        st.query_params.pop(name, None)
    st.query_params.update(view)
    # Sliders write their own query parameters.
    layout = LAYOUTS[view["scene"]]
    st.session_state["mean"] = 0
    st.session_state[f"length_{view['scene']}"] = layout.length
    st.session_state[f"angle_{view['scene']}"] = layout.angle


def paragraphs(training: PlaneTraining) -> tuple[str, str, str, str]:
    """What D does, what S adds, the limits of S, and how the plane differs from the lab."""
    snapshot, distance, layout = training.snapshots[-1], training.distance, LAYOUTS[training.config.scene]
    by_d, by_s = (
        ", ".join(f"{region} **{100 * share:.0f} %**" for region, share in measured.tpr_by_region.items())
        for measured in (distance["known"], snapshot.known)
    )
    unseen_s, unseen_d = (100 * one.metrics["tpr@1%fpr"] for one in (snapshot.unseen, distance["unseen"]))
    if training.config.position:
        title = "A ruler that depends on position"
        sees = (
            "The unit sees u = |a − b|, how far apart two points are on each axis, and v = (a + b) / 2, where they "
            "are. So S can require a small difference in one place and allow a large one in another."
        )
    else:
        title = "A learned ruler"
        sees = (
            "The unit sees u = |a − b| alone. S has learned how much each axis counts, but it is the same everywhere."
        )
    return (
        "**One ruler.** Do two points belong to one class? D answers with a circle of the same size everywhere. In "
        f"{layout.title}, a circle of radius {-distance['known'].threshold:.2f} accepts 1 % of the negative pairs. "
        f"It accepts these shares of the positive pairs: {by_d}. A larger circle accepts more of them, but also joins "
        "more classes.",
        f"**{title}.** {sees} At the same 1 % of the negative pairs, S accepts: {by_s}.",
        f"**The limits of S.** S has learned positions. On classes it was never trained on, S accepts {unseen_s:.0f} % "
        f"of the positive pairs at 1 % FPR, D {unseen_d:.0f} %. Far from all training points S is arbitrary. "
        "Also, the hinge compares only pairs that share a point, so it links thresholds only between neighbouring "
        "classes. Across a gap, one threshold may not fit both sides (see Two islands).",
        "**The plane and the lab.** Here the points are raw coordinates and don't move. In the lab, features have unit "
        "length in $R^{128}$, the network is trained too, and $E_e$ also orders the distances: "
        r"$E = E_m + \lambda E_e + \gamma \lVert W \rVert^2$. Unit, miner and hinge are the same code.",
    )

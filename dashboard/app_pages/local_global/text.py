"""What the page Local vs global says in words, with the numbers of the training it shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.local_global.data import Looks, Training

from pddm_lab.teaching.point_sets import LAYOUTS, Scene

UNIT = (
    (r"u = \lvert a - b \rvert", "u = (a - b).abs()", "How far apart, axis by axis. a and b may change places."),
    (r"v = (a + b) / 2", "v = (a + b) / 2", "Where the pair lies."),
    (r"u' = \mathrm{norm}(\mathrm{relu}(W_u u + b_u))", "u_hidden",
     "Layer `unit.difference`: features of the difference, of length 1."),
    (r"v' = \mathrm{norm}(\mathrm{relu}(W_v v + b_v))", "v_hidden",
     "Layer `unit.position`: features of the place. *u alone* sets $W_v = 0$."),
    (r"c = \mathrm{relu}(W_c [u'; v'] + b_c)", "joint", "Layer `unit.joint`: here difference and place meet."),
    (r"S = W_s c + b_s", "self.score(joint)", "One number, without bounds; larger = more similar."),
    (r"i, j, k, l", "mine(embeddings, labels, similarity, strategy)",
     "For each $i$ its least similar positive $j$, then the most similar negatives $k$ of $i$ and $l$ of $j$."),
    (r"E_m = \max(0, \alpha + S_{ik} - S_{ij}) + \max(0, \alpha + S_{jl} - S_{ij})",
     "double_header_hinge(s_ij, s_ik, s_jl, score_margin)",
     r"The positive pair must win at both of its ends, by $\alpha$."),
)  # fmt: skip
"""The unit and its training: formula, code, and what it is for."""
TASKS = (
    ("One difference, two places",
     "Move the mean from dense to sparse. D stands still. S refuses the pair where it joins two classes and accepts it "
     "inside one. Then let the unit see u alone and move it again: now S stands still, too.",
     {"scene": "density"}),
    ("One ruler for crossing stripes",
     "The colour is S of a lying difference: high on the left, along the stripes, low on the right, across them. Turn "
     "the angle to 90°: left and right change places. No single ruler, however stretched, does both.",
     {"scene": "grains", "show": "pair"}),
    ("What u forgets",
     "Turn the angle from 45° to 135°: from along the stripes to across them. S does not move at all, for |a − b| is "
     "the same. In the lab the network trains along and can turn its features; here the points are fixed.",
     {"scene": "diagonals", "show": "pair"}),
)  # fmt: skip
"""Tasks for a class: title, what to do and to look for, and the view to do it in."""

LEGENDS = {
    "anchor": "Click a point to make it the anchor. Small points train, large ones are held out; classes of open "
    "points never train. S and D each accept 1 % of the negative pairs.",
    "pair": "The colour is S of the pair a, b if its mean lay there; the slider moves it along the dashed line. Click "
    "a point to see S around it.",
}
"""How to read the plane, by what it shows."""


def hover(scene: Scene, anchor: int, scores: np.ndarray) -> list[str]:
    """A line per point: its class, and how near it is to the anchor by S and by D."""
    distances = np.linalg.norm(scene.points - scene.points[anchor], axis=1)
    return [
        f"class {label}, S {score:.2f}, D {distance:.2f}"
        for label, score, distance in zip(scene.labels, scores, distances, strict=True)
    ]


def verdicts(looks: Looks) -> dict[str, str]:
    """What the anchor accepts by S and by D."""
    return {
        name: f"accepts {found.own} of {found.own_total} of its class and {found.others} of {found.others_total} others"
        for name, found in looks.accepted().items()
    }


def reaches(looks: Looks, scores: np.ndarray, difference: np.ndarray) -> dict[str, str]:
    """Where on the plane S and D accept the pair's difference."""
    share = 100 * float((scores > looks.threshold).mean())
    by_d = "everywhere" if np.linalg.norm(difference) < looks.radius else "nowhere"
    return {"S": f"accepts this difference on {share:.0f} % of the plane", "D": f"accepts it {by_d}"}


def counts(scene: Scene, protocol: str) -> str:
    """What a protocol measures on."""
    rows = scene.held_out(protocol)
    return f"{len(rows)} held-out points, {len(np.unique(scene.labels[rows]))} classes"


def table(training: Training, number: int) -> pd.DataFrame:
    """The measures of S and D as `metrics_table` takes them."""
    snapshot = training.snapshots[number]
    measured = {
        ("euclidean", "known"): training.distance["known"], ("euclidean", "unseen"): training.distance["unseen"],
        ("pddm", "known"): snapshot.known, ("pddm", "unseen"): snapshot.unseen,
    }  # fmt: skip
    rows = [
        ("plane", protocol, similarity, metric, value)
        for (similarity, protocol), of in measured.items()
        for metric, value in of.metrics.items()
    ]
    return pd.DataFrame(rows, columns=["run", "protocol", "similarity", "metric", "value"])


def lesson(training: Training) -> None:
    """The text below the plane."""
    st.subheader("What there is to see", anchor=False)
    left, right = st.columns(2, gap="large")
    for side, text in zip((left, right, left, right), paragraphs(training), strict=True):
        side.markdown(text.replace(" %", "\u00a0%"))
    st.subheader("The unit, step by step", anchor=False)
    rows = "\n".join(f"| ${formula}$ | `{code}` | {words} |" for formula, code, words in UNIT)
    st.markdown(f"| Formula | In `pddm.py`, `miner.py`, `losses.py` | In words |\n|---|---|---|\n{rows}")
    st.subheader("Try it with a class", anchor=False)
    for number, (side, (title, text, query)) in enumerate(
        zip(st.columns(len(TASKS), gap="medium"), TASKS, strict=True)
    ):
        with side.container(border=True, height="stretch"):
            st.markdown(f"**{number + 1}. {title}**")
            st.markdown(text)
            st.button("Set it up", key=f"task_{number}", on_click=_set_up, args=(query,))


def _set_up(view: dict[str, str]) -> None:
    """Open a scene as it is at first, but for what the task looks at."""
    for name in ("sees", "step", "show", f"anchor_{view['scene']}"):
        st.query_params.pop(name, None)
    st.query_params.update(view)
    # Sliders own their part of the URL.
    layout = LAYOUTS[view["scene"]]
    st.session_state["mean"] = 0
    st.session_state[f"length_{view['scene']}"] = layout.length
    st.session_state[f"angle_{view['scene']}"] = layout.angle


def paragraphs(training: Training) -> tuple[str, str, str, str]:
    """The question, what S adds, where it ends, and how the lab differs."""
    snapshot, distance, scene = training.snapshots[-1], training.distance, LAYOUTS[training.config.scene]
    by_d, by_s = (
        ", ".join(f"{region} **{100 * share:.0f} %**" for region, share in measured.found.items())
        for measured in (distance["known"], snapshot.known)
    )
    unseen_s, unseen_d = (100 * one.metrics["tpr@1%fpr"] for one in (snapshot.unseen, distance["unseen"]))
    both = training.config.position
    sees = (
        "u = |a − b| says how far apart two points lie, axis by axis; v = (a + b) / 2 says where. From both, S can ask "
        "for a small difference in one place and allow a large one in another"
        if both
        else "Now the unit sees u = |a − b| alone: S has learned how much each axis counts, and it is one ruler still"
    )
    return (
        "**One ruler.** Do two points belong to one class? D answers with a circle, equally large everywhere. In "
        f"{scene.title}, a circle of radius {-distance['known'].threshold:.2f} lets 1 % of the negative pairs pass. Of "
        f"the positive ones it finds: {by_d}. A larger circle finds more of them, and joins more classes.",
        f"**{'A ruler that knows the place' if both else 'A learned ruler'}.** {sees}. Where 1 % of the negative pairs "
        f"pass, too, S finds: {by_s}.",
        f"**Where it ends.** S learned positions. On classes that never trained it finds {unseen_s:.0f} % of the "
        f"positive pairs at 1 % FPR, D {unseen_d:.0f} %; far from any training point it says whatever its lines run "
        "into. And the hinge compares only pairs that share an end: that one threshold fits everywhere is handed on "
        "from class to class, and may fail across a gap (Two islands).",
        "**The plane and the lab.** Here points are raw coordinates and stay where they are. In the lab features have "
        "unit length in $R^{128}$, the network trains along, and $E_e$ keeps the distances in order, too: "
        r"$E = E_m + \lambda E_e + \gamma \lVert W \rVert^2$. Unit, miner and hinge are the same code.",
    )

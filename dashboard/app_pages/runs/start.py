"""Start a training, watch those that are running, and resume those that stopped."""

from __future__ import annotations

import streamlit as st
from app_pages.runs import tables
from shared import launches, loaders, review, shell
from shared.plain_text import command, plain
from streamlit.delta_generator import DeltaGenerator

from pddm_lab.cards import stepper
from pddm_lab.config import LOSSES, OFFLINE_TRUNKS, PRESET_SUMMARIES, PRESETS, data_root, runs_root, typed_path
from pddm_lab.data.corrections import Corrections, corrections_file
from pddm_lab.data.dataset import SOURCES
from pddm_lab.data.source import Source, how_to_get_by_hand
from pddm_lab.errors import LabError
from pddm_lab.figures import METRICS, PHASE_TITLES, style_of
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.folder_name import is_valid_name
from pddm_lab.runs.log import PHASES
from pddm_lab.runs.run import Run
from pddm_lab.validation import flag

_OWN = {
    "folder": (
        "Your own folder", "Folder", "/path/with/one/folder/per/class", "One subfolder per class: "
        "`<folder>/<class>/<image>`.", "Enter the folder that holds the images, with one subfolder per class.",
    ),
    "manifest": (
        "Your own table", "Table", "/path/of/manifest.csv", "CSV with the columns path (relative to the table), label, "
        "split (train or test), and perhaps role (query, gallery or both).",
        "Enter the CSV file that lists the images.",
    ),
}  # fmt: skip
"""Prefix of a user's own data: title, label and placeholder of the path, what it must hold, what to do without it."""


def choose_and_start() -> bool:
    """A form that starts a new training. Returns whether one was started. What is wrong is said below its field."""
    left, right = st.columns([5, 6], gap="medium")
    with left:
        captions = [PRESET_SUMMARIES[name] for name in PRESETS]
        preset = st.radio("Preset", list(PRESETS), captions=captions, key="new_preset")
    below: dict[str, DeltaGenerator] = {}
    with right:
        dataset = _data(below)
        corrections = _corrections(dataset)
        name = st.text_input("Name", key="new_name", placeholder="data, preset and time").strip()
        below["run_name"] = st.container()
        _propose(name, below["run_name"])
        loss = _option("Loss", "loss", preset)
        loss_options = _loss_options(loss, below)
    with st.expander("More settings", type="compact"), st.container(horizontal=True):
        similarity, trunk = _option("Similarity to train", "similarity", preset), _trunk(preset)
        steps = st.number_input("Steps", 1, 1_000_000, PRESETS[preset].steps, key=f"new_steps_{preset}", width=160)
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="new_seed", width=140)
    if not st.button("Start training", type="primary", icon=":material/play_arrow:", key="new_start"):
        return False
    if not dataset:
        below["dataset"].error(_OWN[st.session_state["new_data"]][-1])
        return False
    parameters = {
        "preset": preset, "dataset": dataset, "run_name": name, "loss": loss, "loss_options": loss_options,
        "similarity": similarity, "trunk": trunk, "steps": int(steps), "seed": int(seed),
    }  # fmt: skip
    try:
        launches.start(parameters | ({"corrections": True} if corrections else {}))
    except LabError as error:
        fields = [field for field in below if flag(field) in str(error)]
        if fields != ["run_name"] or not name or launches.free_name(name) == name:  # a taken one is named already
            (below[fields[0]] if fields else st).error(plain(error))
        return False
    return True


def _data(below: dict[str, DeltaGenerator]) -> str:
    """A choice of the data, as `TrainConfig.dataset` names it; empty where a path is missing or can't be one."""
    titles = {name: source.title for name, source in SOURCES.items()} | {name: _OWN[name][0] for name in _OWN}
    data = st.selectbox("Data", list(titles), key="new_data", format_func=titles.__getitem__)
    if data not in _OWN:
        st.caption(f"{_place(SOURCES[data])} Licence: {SOURCES[data].licence}.")
        return data
    _, label, placeholder, needed, _ = _OWN[data]
    path = st.text_input(label, key=f"new_{data}", placeholder=placeholder).strip()
    below["dataset"] = st.container()
    st.caption(f"{needed} The images stay on this machine.")
    return f"{data}:{typed_path(path)}" if path and "\0" not in path else ""


def _corrections(dataset: str) -> bool:
    """Whether to train with the corrections of the data, where there are any."""
    try:
        made = review.corrections_in(corrections_file(runs_root(), dataset)) if dataset else Corrections()
    except LabError as error:
        st.error(plain(error))
        return False
    return bool(made.by_item) and st.checkbox(f"With its corrections: {made.summary}", key="new_corrections")


def _propose(name: str, place: DeltaGenerator) -> None:
    """Say below the field that a name is taken, with the next one that is free."""
    if not is_valid_name(name) or (free := launches.free_name(name)) == name:
        return

    def take() -> None:
        st.session_state["new_name"] = free

    with place, st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f":red[There is a run {plain(name)} already.]", width="content")
        st.button(f"Use {plain(free)}", key="new_next_name", on_click=take, type="tertiary")


def _loss_options(loss: str, below: dict[str, DeltaGenerator]) -> str:
    """The options of a loss that has some, as `TrainConfig.loss_options` takes them."""
    defaults = ", ".join(f"{name}={value:g}" for name, value in LOSSES[loss].options.items())
    if not defaults:
        return ""
    text = st.text_input("Options of the loss", key=f"new_options_{loss}", placeholder=defaults)
    below["loss_options"] = st.container()
    return text.strip()


def _option(label: str, field: str, preset: str) -> str:
    """A choice among the values that a field of TrainConfig allows, starting from the preset's."""
    options = tables.options(field)
    default = options.index(getattr(PRESETS[preset], field))
    return st.selectbox(
        label, options, default, key=f"new_{field}_{preset}", width=220,
        format_func=lambda name: tables.option_title(field, name),
    )  # fmt: skip


def _place(source: Source) -> str:
    """Whether a data set is here, and how it comes here."""
    if source.is_present(data_root()):
        return "Already downloaded."
    if source.by_hand:
        return f"Not here yet. {plain(how_to_get_by_hand(source.by_hand, data_root() / source.folder_name))}"
    return f"Will be downloaded first: {source.size}."


def _trunk(preset: str) -> str:
    """A choice among the trunks that need no network, and the preset's own."""
    own = PRESETS[preset].trunk
    options = list(dict.fromkeys([*OFFLINE_TRUNKS, own]))
    return st.selectbox(
        "Trunk", options, options.index(own), key=f"new_trunk_{preset}", width=220,
        help="Larger EfficientNets see more, and compute features more slowly. Others: `pddm-lab train --trunk`.",
    )  # fmt: skip


@st.dialog("Train a run", width="large", icon=":material/model_training:")
def dialog() -> None:
    """The form in a dialog."""
    if choose_and_start():
        st.rerun()


def _in_progress() -> tuple[list[Run], list[launches.Launch]]:
    """The runs that are training, and the launches that have no run yet."""
    runs = {run.name: run for run in list_runs()}
    waiting = []
    for launch in launches.launches():
        run = runs.get(launch.name)
        if run is None or (isinstance(run, Run) and not launch.has_started(run)):
            waiting.append(launch)
        elif not launch.alive:
            launch.forget()  # the run's folder says how it ended
    return [run for run in runs.values() if isinstance(run, Run) and run.status == "running"], waiting


def _state(running: list[Run], waiting: list[launches.Launch]) -> list[tuple[str, bool]]:
    """What the page must be redrawn for when it changes: the names in progress, and whether each is a run yet."""
    return sorted([(run.name, True) for run in running] + [(launch.name, False) for launch in waiting if launch.alive])


def watch() -> bool:
    """The trainings in progress, updated every two seconds. Returns whether there are any."""
    running, waiting = _in_progress()
    state = _state(running, waiting)
    st.session_state["in_progress"] = state
    if state:
        _watch_live()
    else:
        _show(running, waiting)
    return bool(state)


@st.fragment(run_every=2)
def _watch_live() -> None:
    running, waiting = _in_progress()
    if _state(running, waiting) != st.session_state["in_progress"]:
        st.rerun()  # one started, ended or became a run: the whole page changes
    _show(running, waiting)


def _show(running: list[Run], waiting: list[launches.Launch]) -> None:
    for launch in waiting:
        _show_launch(launch)
    logs = {launch.name: launch for launch in launches.launches()}
    for run in running:
        _show_running(run, logs.get(run.name))


def _show_launch(launch: launches.Launch) -> None:
    lines = launch.lines()
    with st.container(border=True):
        if launch.alive:
            with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
                st.markdown(f"**{plain(launch.name)}** :gray[is starting]")
                st.button("Cancel", key=f"cancel_{launch.name}", icon=":material/close:", on_click=launch.cancel)
            st.html(stepper(["Starting", *(PHASE_TITLES[phase] for phase in PHASES[:-1] if phase != "local")], 0))
            if bar := launch.progress():
                _bar(*bar)
            else:
                st.caption(plain(lines[-1]) if lines else "Starting Python")
            return
        reason = lines[-1] if lines else "The process ended without output."
        st.error(plain(reason), title=f"{plain(launch.name)} did not start", icon=":material/error:")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("Dismiss", key=f"dismiss_{launch.name}", on_click=launch.forget, icon=":material/close:")
            with st.expander("Output", type="compact"):
                st.code("\n".join(lines), language=None, wrap_lines=True)


def _show_running(run: Run, launch: launches.Launch | None) -> None:
    metrics = loaders.metrics(run)
    phase, total = run.info["phase"], max(int(run.info.get("steps_total") or 1), 1)
    step = min(tables.last_step(run, metrics), total)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{plain(run.name)}** :gray[· {shell.duration(shell.seconds_spent(run))} so far]")
            stopping = run.stop_requested()
            st.button(
                "Stopping" if stopping else "Stop", key=f"stop_{run.name}", icon=":material/stop_circle:",
                disabled=stopping, on_click=_stop, args=[run], help="Stops within seconds. You can resume it later.",
            )  # fmt: skip
        phases = [name for name in PHASES if name != "local" or name == phase or run.config.local_structure]
        st.html(stepper([PHASE_TITLES[name] for name in phases[:-1]], phases.index(phase)))
        bar = launch.progress() if launch else None
        if bar and (step == 0 or phase not in ("select", "refit")):  # only the output shows work that isn't a step
            _bar(*bar)
        elif phase in ("select", "refit"):
            _bar(PHASE_TITLES[phase] + ", step", step, total)
        facts = [
            f"validation {METRICS['map@r'].title} by {style_of(name).title} **{METRICS['map@r'].format(value)} %**"
            for name, value in tables.latest(metrics, "validation", "map@r").items()
        ]
        loss = list(tables.latest(metrics[metrics["phase"] == phase], "train", "loss").values())
        facts += [f"loss **{loss[0]:.3f}**"] if loss else []
        if facts:
            st.caption(" · ".join(facts))


def _stop(run: Run) -> None:
    try:
        run.request_stop()
    except LabError as error:
        st.error(str(error))


def _bar(what: str, done: int, total: int) -> None:
    st.progress(min(done / max(total, 1), 1.0), text=plain(f"{what[:1].upper()}{what[1:]} {done:,} of {total:,}"))


def resume_button(run: Run) -> None:
    """A button that resumes a run which stopped, failed or was interrupted."""
    if st.button("Resume", key=f"resume_{run.name}", icon=":material/resume:", help=command("resume", run.name)):
        try:
            launches.resume(run)
        except LabError as error:
            st.error(plain(error))
        else:
            st.rerun()

"""What every page shares: the choice of a run, its facts and licences in the sidebar, headings, and empty states."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import streamlit as st
from shared import loaders

from pddm_lab import cards
from pddm_lab.figures import PHASE_TITLES, PROTOCOL_TITLES, style_of
from pddm_lab.runs.compare import BrokenRun, measured_alike
from pddm_lab.runs.run import Run

STATUS_ICONS = {
    "running": ":material/progress_activity:",
    "finished": ":material/check_circle:",
    "failed": ":material/error:",
    "stopped": ":material/stop_circle:",
    "interrupted": ":material/power_off:",
}


def sidebar() -> None:
    """The run to look at (kept in the URL), what it is, and whose pictures it shows."""
    found = [run for run in loaders.list_runs() if isinstance(run, Run)]
    with st.sidebar:
        if not found:
            st.caption("No run yet. The Runs page trains one.")
            return
        names = [run.name for run in found]
        asked = st.query_params.get("run")
        if asked in names:
            st.session_state["run"] = asked
        elif st.session_state.get("run") not in names:
            st.session_state["run"] = names[0]
        status = {run.name: run.status for run in found}
        st.selectbox(
            "Run",
            names,
            key="run",
            on_change=_keep_run_in_url,
            format_func=lambda name: name if status[name] == "finished" else f"{name} · {status[name]}",
        )
        st.session_state["asked_run"] = asked if asked and asked not in names else ""
        if asked != st.session_state["run"]:  # writing sends the whole URL, and may cross a choice on its way here
            st.query_params["run"] = st.session_state["run"]
        _facts(found[names.index(st.session_state["run"])])


def _keep_run_in_url() -> None:
    st.query_params["run"] = st.session_state["run"]


def _facts(run: Run) -> None:
    data = run.info["dataset"]
    skipped = len(data["skipped"]) if isinstance(data.get("skipped"), list) else int(data.get("skipped") or 0)
    facts = {
        "Data": f"{data['name']}",
        "Items": f"{data['items']:,} in {data['classes']:,} classes" + (f", {skipped} skipped" if skipped else ""),
        "Training": f"{run.config.preset}, {style_of(run.config.similarity).title}, d = {run.config.dim}",
        "Trunk": run.config.trunk,
        "Time": f"{duration(spent(run))} on {run.info.get('device', 'an unknown device')}",
    }
    st.html(cards.facts(facts))
    st.caption(f"**Pictures:** {data.get('licence') or 'licence unknown'}")
    if data.get("attribution"):
        with st.expander("Attribution", type="compact"):
            st.caption(str(data["attribution"]))


def heading(title: str, text: str) -> None:
    """A page's title and one line on what it shows; tells when a link named a run that isn't here."""
    st.title(title, anchor=False)
    st.caption(text)
    if missing := st.session_state.get("asked_run"):
        broken = [run.reason for run in loaders.list_runs() if isinstance(run, BrokenRun) and run.name == missing]
        why = broken[0] if broken else f"The link names the run “{plain(missing)}”, which isn't here."
        st.warning(f"{why} Showing {st.session_state['run']} instead.", icon=":material/link_off:")


def chosen_run() -> Run | None:
    """The run chosen in the sidebar; None where there is no run at all."""
    name = st.session_state.get("run")
    return next((run for run in loaders.list_runs() if isinstance(run, Run) and run.name == name), None)


def run_or_stop() -> Run:
    """The chosen run; without one the page ends here with a way on."""
    run = chosen_run()
    if run is None:
        nothing("No run yet", "Train one on the Runs page: it takes about a minute.", ":material/model_training:")
    return run


def nothing(title: str, text: str, icon: str = ":material/hourglass_empty:") -> NoReturn:
    """An empty state: what is missing, why, and the way on. Ends the page."""
    with st.container(border=True, horizontal_alignment="center"):
        st.space("small")
        st.markdown(f"### {icon} {title}", text_alignment="center")
        st.markdown(text, text_alignment="center")
        st.page_link("app_pages/runs/page.py", label="Go to Runs", icon=":material/monitoring:")
        st.space("small")
    st.stop()


def without(run: Run, what: str) -> NoReturn:
    """The empty state of a page whose part of the run isn't there yet, or never will be."""
    if run.status == "running":
        phase = PHASE_TITLES.get(run.info["phase"], run.info["phase"]).lower()
        nothing("Still training", f"{run.name} has no {what} yet. It is {phase}; the Runs page shows its progress.")
    if run.reason:
        nothing(f"{run.name}: {run.status}", f"It has no {what}. {run.reason}", STATUS_ICONS.get(run.status, ""))
    nothing(f"No {what}", f"{run.name} is {run.status} and left no {what}.")


def choice(
    widget: Callable[..., Any], label: str, titles: Mapping[str, str], key: str, default: str = "", **options: Any
) -> str:
    """One of a few choices, in the URL by its name rather than, as Streamlit's own binding would have it, by its title.

    The URL is what holds: it opens a link's view, survives a change of page, and goes back and forth with the browser.

    Args:
        widget: st.segmented_control or st.selectbox.
        titles: names and what they are called on the page.
        default: a name; empty: the first. It is not written to the URL.
    """
    default = default if default in titles else next(iter(titles))

    def keep() -> None:
        if st.session_state[key] == default:
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = st.session_state[key]

    asked = st.query_params.get(key)
    st.session_state[key] = asked if asked in titles else default
    if widget is st.segmented_control:
        options["required"] = True
    return str(widget(label, list(titles), key=key, on_change=keep, format_func=lambda name: titles[name], **options))


def protocol_picker(run: Run) -> str:
    """A choice among the protocols the run has galleries for."""
    protocols = run.protocols()
    if not protocols:
        without(run, "gallery")
    return choice(
        st.segmented_control,
        "Protocol",
        {name: PROTOCOL_TITLES[name] for name in protocols},
        "protocol",
        help="Unseen: classes that never trained. Known: new photos of classes that did.",
    )


def second_run(run: Run, protocol: str, **options: Any) -> Run | None:
    """A choice of another run to open beside this one, in the URL as `with`; None where none is chosen.

    Offered are the runs that have a gallery of the protocol with the same items, so that a selection means the same in
    both.
    """
    same = [
        other.name
        for other in loaders.list_runs()
        if isinstance(other, Run)
        and other.name != run.name
        and protocol in other.protocols()
        and measured_alike([run, other])
    ]
    if not same:
        return None
    titles = {"": "no other run", **{name: name for name in same}}
    name = choice(st.selectbox, "Beside it", titles, "with", **options)
    return next((other for other in loaders.list_runs() if isinstance(other, Run) and other.name == name), None)


def plain(text: str) -> str:
    """A stranger's text (from a link, an upload) as words alone: as Markdown it could fetch a picture from anywhere."""
    return re.sub(r"([^\w\s])", r"\\\1", text)


def spent(run: Run) -> float:
    """Seconds spent on a run; of one at work also those since its last sign of life."""
    since = time.time() - float(run.info.get("heartbeat") or time.time())
    return run.seconds + (max(since, 0.0) if run.status == "running" else 0.0)


def duration(seconds: float) -> str:
    """Seconds for reading: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

"""What every page shares: the choice of a run, its facts and licence in the sidebar, headings and choices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import streamlit as st
from shared import glossary, loaders
from shared.plain_text import plain
from streamlit.delta_generator import DeltaGenerator

from pddm_lab import cards
from pddm_lab.figures import PHASE_TITLES, PROTOCOL_TITLES
from pddm_lab.runs.compare import BrokenRun, list_runs, measured_alike
from pddm_lab.runs.run import Run
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.wording import counted

STATUS_ICONS = {
    "running": ":material/progress_activity:",
    "finished": ":material/check_circle:",
    "failed": ":material/error:",
    "stopped": ":material/stop_circle:",
    "interrupted": ":material/power_off:",
}

WARNING_ICON = ":material/warning:"
SHIPPED_STUDY = "the lab's"
"""In a link, the results that come with the lab: no study's folder can have a name with a blank."""


def _openable() -> list[Run]:
    return [run for run in list_runs() if isinstance(run, Run)]


def sidebar() -> None:
    """The choice of a run (kept in the URL), its facts, and the licence of its pictures."""
    runs = _openable()
    with st.sidebar:
        if not runs:
            st.caption("No runs yet. Train one on the Runs page.")
            return
        names = [run.name for run in runs]
        linked = st.query_params.get("run")
        if linked in names:
            st.session_state["run"] = linked
        elif st.session_state.get("run") not in names:
            st.session_state["run"] = names[0]
        status = {run.name: run.status for run in runs}
        st.selectbox(
            "Run",
            names,
            key="run",
            on_change=lambda: st.query_params.update(run=st.session_state["run"]),
            format_func=lambda name: name if status[name] == "finished" else f"{name} · {status[name]}",
        )
        st.session_state["missing_run"] = linked if linked and linked not in names else ""
        if linked != st.session_state["run"]:  # a write sends the whole URL, and may overtake a choice made meanwhile
            st.query_params["run"] = st.session_state["run"]
        _facts(runs[names.index(st.session_state["run"])])


def _facts(run: Run) -> None:
    data = run.info["dataset"]
    skipped = data.get("skipped") or 0
    skipped = skipped if isinstance(skipped, int) else len(skipped)
    classes = (
        f"{data['items']:,} in {counted(data['classes'], 'class', 'classes')}"
        if run.is_labelled
        else f"{data['items']:,}, no labels"
    )
    training, trunk = f"{run.config.preset}, {run.config.trained_by}", run.config.trunk
    if run.config.is_imported:
        training, trunk = (
            "imported" + (", similarities trained" if run.learned else ""),
            data.get("model") or "not known",
        )
    facts = {
        "Data": data["name"],
        "Items": classes + (f", {skipped} skipped" if skipped else ""),
        "Training": f"{training}, d = {run.config.dim}",
        "Model" if run.config.is_imported else "Trunk": trunk,
        "Time": f"{duration(seconds_spent(run))} on {run.info['device']}",
    }
    st.html(cards.facts(facts))
    st.caption(f"**Pictures:** {plain(data.get('licence') or 'licence unknown')}")
    if data.get("attribution"):
        with st.expander("Attribution", type="compact"):
            st.caption(plain(data["attribution"]))


def heading(title: str, text: str, words: Sequence[str] = (), results: bool = False) -> None:
    """A page's title and one line on what it shows, with a warning if the link named a run that doesn't exist.

    Args:
        words: of the page, whose meanings are shown on hover (glossary.py).
        results: whether the page calls `results_begin` where the keyboard can skip to.
    """
    st.title(title, anchor=False)
    st.html(glossary.lead(text, words, results))
    if missing := st.session_state.get("missing_run"):
        broken = [run.reason for run in list_runs() if isinstance(run, BrokenRun) and run.name == missing]
        why = broken[0] if broken else f"The run “{missing}” named in the link doesn't exist."
        warn_of_link(f"{why} Showing {st.session_state['run']} instead.")


def results_begin() -> None:
    """Mark the place of a page's results, to which the link in its heading skips."""
    st.html(f'<span id="{glossary.RESULTS}" tabindex="-1"></span>')


def warn_of_link(text: str) -> None:
    """Say what is wrong with the page's link."""
    st.warning(plain(text), icon=":material/link_off:")


def run_or_stop(warns: bool = True) -> Run:
    """The run chosen in the sidebar, with its warnings unless the page shows them itself; without any run the page ends
    here and says what to do."""
    for run in _openable():
        if run.name == st.session_state.get("run"):
            if warns:
                show_warnings(run)
            return run
    nothing("No runs yet", "Train one on the Runs page: it takes some minutes.", ":material/model_training:")


def show_warnings(run: Run) -> None:
    """What the training of a run noticed, for the reader of any of its numbers."""
    texts, name = [plain(text) for text in run.info.get("warnings", ())], plain(run.name)
    if texts[1:]:  # folded, so that they take one line, too
        with st.expander(f"**{name}:** {len(texts)} warnings", icon=WARNING_ICON):
            st.markdown("\n".join(f"* {text}" for text in texts))
    elif texts:
        st.warning(f"**{name}:** {texts[0]}", icon=WARNING_ICON)


def nothing(title: str, text: str, icon: str = ":material/hourglass_empty:") -> NoReturn:
    """An empty state: what is missing, why, and what to do. Ends the page."""
    with st.container(border=True, horizontal_alignment="center"):
        st.space("small")
        st.markdown(f"## {icon} {plain(title)}", text_alignment="center")
        st.markdown(plain(text), text_alignment="center")
        st.page_link("app_pages/runs/page.py", label="Go to Runs", icon=":material/monitoring:")
        st.space("small")
    st.stop()


def unreadable(title: str, error: Exception) -> NoReturn:
    """The empty state of a page that can't read or compute what it shows. Ends the page."""
    nothing(title, str(error), ":material/broken_image:")


def without(run: Run, what: str) -> NoReturn:
    """The empty state of a page that needs a part of the run which is missing, for now or for good."""
    if run.status == "running":
        phase = PHASE_TITLES.get(run.info["phase"], run.info["phase"]).lower()
        nothing("Still training", f"{run.name} has no {what} yet. Current phase: {phase}. See its progress on Runs.")
    if run.reason:
        nothing(f"{run.name}: {run.status}", f"It has no {what}. {run.reason}", STATUS_ICONS.get(run.status, ""))
    nothing(f"No {what}", f"{run.name} is {run.status} and has no {what}.")


def needs_labels(run: Run, what: str) -> None:
    """End a page that shows something of classes, for a run whose items have none."""
    if not run.is_labelled:
        text = f"The items of {run.name} have no labels, and {what} are of classes. Import them with a column label."
        nothing("No labels", text, ":material/label_off:")


def choice(
    widget: Callable[..., Any], label: str, titles: Mapping[str, str], key: str, default: str = "", **options: Any
) -> str:
    """One of a few choices, in the URL by its name (Streamlit's own binding would write its title).

    The URL is decisive, so that links, changes of page and the browser's back button work.

    Args:
        widget: st.segmented_control or st.selectbox.
        titles: what each name is called on the page.
        default: a name, which is not written to the URL; empty for the first.
    """
    default = default if default in titles else next(iter(titles))

    def keep() -> None:
        put_in_url(**{key: "" if st.session_state[key] == default else st.session_state[key]})

    linked = st.query_params.get(key)
    st.session_state[key] = linked if linked in titles else default
    if widget is st.segmented_control:
        options = {"required": True, "wrap": True} | options
    return str(widget(label, list(titles), key=key, on_change=keep, format_func=lambda name: titles[name], **options))


def choices(
    widget: Callable[..., Any], label: str, titles: Mapping[str, str], key: str, default: Sequence[str] = (),
    **options: Any,
) -> tuple[str, ...]:  # fmt: skip
    """Any number of choices, in the URL by their names as in `choice`.

    Args:
        widget: st.multiselect or st.pills.
        default: names that are not written to the URL; without them none chosen is written as `none`.
    """

    def keep() -> None:
        chosen = st.session_state[key]
        if sorted(chosen) == sorted(default):
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = list(chosen) or ["none"]

    linked = st.query_params.get_all(key)
    valid = [name for name in dict.fromkeys(linked) if name in titles]
    st.session_state[key] = valid if valid or linked == ["none"] else list(default)
    chosen = widget(label, list(titles), key=key, on_change=keep, format_func=lambda name: titles[name], **options)
    return tuple(chosen)


def unfolded(label: str, key: str, compact: bool = False) -> DeltaGenerator | None:
    """A part of the page that is folded at first: None until it is opened, so that nothing of it is computed or drawn.

    Args:
        key: says in the URL that it is open.
    """
    kind: Literal["compact", "default"] = "compact" if compact else "default"
    place = st.expander(label, key=key, type=kind, on_change="rerun", bind="query-params")
    return place if place.open else None


def put_in_url(**choices: str) -> None:
    """Put choices into the URL; an empty one is removed from it."""
    for name, value in choices.items():
        if value:
            st.query_params[name] = value
        else:
            st.query_params.pop(name, None)


def linked_number(name: str, low: int, high: int, default: int) -> int:
    """A whole number in the URL, moved into a range; the default if it isn't one."""
    text = st.query_params.get(name, "")
    return min(max(int(text[:9]), low), high) if text.isdecimal() else default


def paged(count: int, per_page: int, key: str, about: Any = None) -> slice:
    """Show a choice of pages, kept in the URL; returns what is on the chosen one. A change of `about` opens page 1."""
    if st.session_state.get(f"{key}_about", about) != about:
        st.session_state[key] = 1
    st.session_state[f"{key}_about"] = about
    pages = max(1, -(-count // per_page))
    page = min(st.pagination(pages, key=key, bind="query-params"), pages)
    return slice((page - 1) * per_page, min(page * per_page, count))


def search_link(run: Run, protocol: str, item: str, label: str = "Search with it", **options: Any) -> None:
    """A link to the Search page, with an item as the query."""
    query = {"run": run.name, "protocol": protocol, "item": item}
    icon = ":material/image_search:"
    st.page_link("app_pages/search/page.py", label=label, icon=icon, query_params=query, **options)


def protocol_picker(run: Run, galleries: Sequence[str] = (), label: str = "Protocol") -> str:
    """A choice among the protocols for which the run has galleries, or among other galleries of it."""
    protocols = galleries or run.protocols()
    if not protocols:
        without(run, "gallery")
    if not run.is_labelled:  # without classes none is new or known
        return choice(st.segmented_control, label, dict.fromkeys(protocols, "All items"), "protocol")
    return choice(
        st.segmented_control,
        label,
        {name: PROTOCOL_TITLES[name] for name in protocols},
        "protocol",
        help=glossary.meaning("unseen", "known")
        + (" Whole range: all items of all classes." if "catalogue" in protocols else ""),
    )


def second_run(run: Run, protocol: str, **options: Any) -> Run | None:
    """A choice of another run to show beside this one, in the URL as `with`; None if none is chosen.

    It offers runs that have a gallery of the protocol with the same items, so that a selection applies to both.
    """
    others = {
        other.name: other
        for other in _openable()
        if other.name != run.name and protocol in other.galleries() and measured_alike([run, other])
    }
    if not others:
        return None
    titles = {"": "no other run", **{name: name for name in others}}
    return others.get(choice(st.selectbox, "Compare with", titles, "with", **options))


def compared_similarities(runs: Iterable[Run]) -> tuple[str, str]:
    """The pair of similarities to compare first: Euclidean and local structure where all runs have it, else the first
    run's own, or the network if that is Euclidean."""
    runs = list(runs)
    if all(run.info.get("local") for run in runs):
        return "euclidean", "local"
    own = str(runs[0].config.similarity)
    network = next(name for name, spec in SIMILARITIES.items() if spec.is_network)
    return "euclidean", network if own == "euclidean" else own


def stale_caption(run: Run, protocol: str) -> None:
    """Say so where L is behind a change of the gallery; the page is drawn again once it isn't."""
    if note := loaders.stale_note(run, protocol):
        st.fragment(_stale_caption, run_every=3)(run, protocol, note)


def _stale_caption(run: Run, protocol: str, note: str) -> None:
    if loaders.stale_note(run, protocol) != note:
        st.rerun()
    st.caption(f":material/update: {note} They are listed anew in the background, and L changes a little then.")


def seconds_spent(run: Run) -> float:
    """Seconds spent on a run; for a running one including those since its last heartbeat."""
    since = time.time() - float(run.info.get("heartbeat") or time.time())
    return run.seconds + (max(since, 0.0) if run.status == "running" else 0.0)


def duration(seconds: float) -> str:
    """Seconds in words: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

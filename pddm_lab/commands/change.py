"""The commands of a range that changes: `drift` and `bench drift`, `update` and `sessions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Interval
from tyro.conf import arg

from pddm_lab.commands.terminal import DataRoot, RunName, RunsRoot, print_table, progress_bar, write_csv
from pddm_lab.config import Count, CountOrNone, typed_path
from pddm_lab.errors import ConfigError, RunError

if TYPE_CHECKING:
    from pddm_lab.update.run_update import Updated

Window = Annotated[int, Interval(ge=30, le=1000)]
_Add = Annotated[str, arg(help="Folder of new pictures, FOLDER/<class>/<image>.")]
_AsJson = Annotated[bool, arg(name="json", help="Print the result as JSON instead, without pictures.")]


def drift(
    run: RunName, queries: str = "", log: str = "", window: Window = 200,
    order: Literal["auto", "name", "random"] = "auto", model: str = "", as_json: _AsJson = False, seed: CountOrNone = 0,
    runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Compare new queries with a run's own, and say whether they drift away from it. The result is kept with the run.

    Args:
        queries: Folder with the pictures of queries; the last 1000 are looked at.
        log: Instead, a log of scores: a JSON object a line, the oldest first, with distance (D to the nearest item),
            margin (D to the nearest item of another class, minus distance), probability (of the nearest item's class),
            in_range (true or false) and, if you like, class_name.
        window: Queries that are compared at a time, 30 to 1000.
        order: Of the pictures: by name, as they came, or random. auto: by name if all of them lie in one folder.
        model: Model that made imported features: package.module:callable, a file or torchvision:NAME.
        seed: Seed of all draws.
    """
    from pddm_lab.change import drift_text
    from pddm_lab.change.drift import drift_of_folder, drift_of_log
    from pddm_lab.change.drift_schema import write_drift
    from pddm_lab.training.notebook import run_named

    if bool(queries) == bool(log):
        raise ConfigError(f"Expected --queries FOLDER or --log FILE, got {'both' if queries else 'none of them'}.")
    watched = run_named(run, runs_root)
    with progress_bar() as report:
        if queries:
            shuffled = {"auto": None, "name": False, "random": True}[order]
            content, notes = drift_of_folder(watched, typed_path(queries), window, model, shuffled, seed, report)
        else:
            content, notes = drift_of_log(watched, typed_path(log), window, seed, report)
    if as_json:
        print(content.model_dump_json(indent=1, exclude={"farthest": {"__all__": {"thumb"}}}))
        write_drift(watched, content)
        return
    print(drift_text.sentence(content), drift_text.advice(content, watched))
    print("\n".join(["", *notes, ""]) if notes else "")
    print_table(drift_text.HEAD, drift_text.table_rows(content))
    if lines := drift_text.classes_in_words(content):
        print("\n" + "\n".join(lines))
    print(f"\n{drift_text.facts(content)}")
    write_drift(watched, content)
    print("The page Drift shows it: pddm-lab dashboard")


def update(
    run: RunName, add: _Add = "", dataset: str = "", replay: Count = 2000, steps: Count = 100,
    near: Annotated[float, Ge(0)] = 1.0, rollback: bool = False, watch: str = "", every: str = "",
    after: CountOrNone = 0, map: bool = True, data_root: DataRoot = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Train a run on with new classes and items. The result is a new run, RUN-update-1, which serves if it finds more.

    The frozen trunk stays; the head and the similarities train on, on the new items and on some of the old ones.

    Args:
        dataset: Data set whose items are new, as for `pddm-lab train`, instead of a folder.
        replay: Old items that train again, at most; of each class those that stand for it best.
        steps: Training steps.
        near: Weight of what keeps the features of old classes where they were, so that vectors of both models can be
            compared; 0: off.
        rollback: Let the model serve again that served before the last update.
        watch: Folder as for --add, to which pictures are added: update by itself until Ctrl-C, one at a time.
        every: How often, with --watch, if there are new pictures: 90s, 30m, 1h or 2d.
        after: With --watch, how many new pictures make an update due.
        map: Draw the new run's maps in the background.
    """
    from pddm_lab import config
    from pddm_lab.progress import progress_bars
    from pddm_lab.runs.compare import find_run
    from pddm_lab.update import arrivals
    from pddm_lab.update.continued import Choices
    from pddm_lab.update.run_update import update_run
    from pddm_lab.update.serving import roll_back

    if [bool(add), bool(dataset), rollback, bool(watch)].count(True) != 1:
        raise ConfigError(
            "`pddm-lab update` expects one of --add FOLDER, --dataset NAME, --watch FOLDER and --rollback."
        )
    of, choices = find_run(run, runs_root), Choices(steps=steps, near=near, replay=replay)
    if watch:
        from pddm_lab.update import watch as watching

        watching.watch(
            of, typed_path(watch), choices, every=watching.seconds_of(every), after=after,
            log=lambda line: print(line, flush=True), done=lambda updated: _draw_maps(updated, map),
        )  # fmt: skip
    if rollback:
        was, now, left = roll_back(of)
        print("\n".join([f"{now.name} serves again, instead of {was.name}, which is kept.", *left]))
        return
    root = config.data_root(data_root)
    updated = update_run(
        of,
        lambda report: (
            arrivals.from_folder(typed_path(add), report) if add else arrivals.from_dataset(dataset, root, report)
        ),
        choices, progress_bars(True),
    )  # fmt: skip
    _draw_maps(updated, map)
    print("\n".join(_report(updated)))


def _draw_maps(updated: Updated, draw: bool) -> None:
    from pddm_lab.gallery.redraw import start_redrawing

    for name in updated.run.galleries() if draw else ():
        start_redrawing(updated.run.path / "gallery" / name)


def _report(updated: Updated) -> list[str]:
    """What an update did, a line each."""
    from pddm_lab.similarities import EVERY
    from pddm_lab.update.verdict import in_words
    from pddm_lab.wording import counted

    facts = updated.run.info["updated"]
    new, classes = counted(facts["new_items"], "new item"), counted(facts["new_classes"], "new class", "new classes")
    lines = [
        f"{updated.run.name}: {updated.source.name} trained on, with {new} ({classes}) and "
        f"{counted(facts['replay'], 'old one')} of {counted(facts['replay_classes'], 'class', 'classes')}.",
        *updated.notes, *in_words(updated.verdict, lambda name: EVERY[name].letter),
    ]  # fmt: skip
    if updated.verdict.better:
        return [*lines, f"It serves now, instead of {updated.source.name}. To go back: `pddm-lab update "
                        f"{facts['first']} --rollback`."]  # fmt: skip
    return [*lines, f"It isn't better, so {updated.source.name} still serves. To find the new items without training: "
                    f"`pddm-lab gallery add {updated.source.name} FOLDER`."]  # fmt: skip


def sessions(
    name: str = "sessions", datasets: tuple[str, ...] = ("emoji", "grocery", "caltech101"), ways: tuple[str, ...] = (),
    sessions: Count = 5, classes: Count = 10, seeds: Count = 3, steps: Count = 500, update_steps: Count = 100,
    near: Annotated[float, Ge(0)] = 1.0, replay: Count = 2000, anew: tuple[Count, ...] = (), local: bool = True,
    processes: Count = 1, csv: str = "", data_root: DataRoot = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Compare ways to keep up with new classes that come in sessions, on cached features. Resumes where it stopped.

    Args:
        name: Name of the study that keeps the cells: a folder under studies in the runs' root.
        datasets: Data sets.
        ways: none, unit, naive, replay, near (what `pddm-lab update` does) and full; empty: all.
        sessions: Sessions of new classes, after a first training.
        classes: New classes in each.
        seeds: Divisions of each data set, with a training each.
        steps: Steps of the first training, and of each training of all anew.
        update_steps: Steps of an update.
        near: Weight of what keeps features near, of the way near.
        replay: Old items that train again, at most.
        anew: Sessions after which the way full trains, which takes most of the time; empty: all.
        local: Measure local structure too, which takes as long to fit as the rest of the first training.
        processes: Processes that compute at once, one thread each.
        csv: File to write all values to.
    """
    from pddm_lab.commands.data import fetch_if_missing
    from pddm_lab.study.cells import Study
    from pddm_lab.update.compare import run_sessions
    from pddm_lab.update.continued import Choices
    from pddm_lab.update.tables import summary, updates_table
    from pddm_lab.update.ways import WAYS

    for dataset in datasets:
        fetch_if_missing(dataset, data_root)
    study = Study.create(name, runs_root)
    roots = {key: value for key, value in (("data_root", data_root), ("runs_root", runs_root)) if value}
    outcome = run_sessions(
        study, datasets, ways, base=roots, sessions=sessions, classes=classes, seeds=seeds, steps=steps,
        choices=Choices(steps=update_steps, near=near, replay=replay), anew=anew, local=local,
        processes=processes,
    )  # fmt: skip
    table = updates_table(study)
    for dataset in datasets if len(table) else ():
        for similarity, title in (("euclidean", "D"), ("pddm", "S"), ("local", "local structure")):
            if not table[table["dataset"] == dataset]["similarity"].eq(similarity).any():
                continue
            wide = summary(table, dataset, similarity)
            print(f"\n{dataset}, by {title}: R@1 in %; of the first update points of MAP@R, shares in % and seconds")
            print_table(
                ["", *wide.columns[1:]],
                [
                    [WAYS[row[0]], *("-" if value != value else f"{100 * value:.1f}" for value in row[1:-1]),
                     "-" if row[-1] != row[-1] else f"{row[-1]:.1f}"]
                    for row in wide.itertuples(index=False)
                ],
            )  # fmt: skip
    write_csv(table.round(4), csv)
    if outcome.failures:
        key, reason = next(iter(outcome.failures.items()))
        raise RunError(f"{len(outcome.failures)} cells failed, the first is {key}: {reason}")

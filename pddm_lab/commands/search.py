"""Search a run's items from the command line, or for others over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from pddm_lab.commands.terminal import Port, RunName, RunsRoot, print_table, printable, write_csv
from pddm_lab.config import Count, CountOrNone, typed_path
from pddm_lab.errors import DataError, RunError, unknown_name
from pddm_lab.similarities import EVERY

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.model.similarity import Similarity

_SAMPLE = 500  # items that a decision is fitted on: a second
_What = Positional[Annotated[str, arg(metavar="IMAGE|ID")]]


def search(
    run: RunName, what: _What, by: str = "", k: Count = 10, shortlist: Count = 100, protocol: str = "",
    model: str = "", csv: str = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Search a run's catalogue with a picture or one of its items: the most similar items, and the class it shows.

    Of a run that was updated, the update that serves is taken; name one to take another.

    Args:
        what: File of a picture, or the id of an item.
        by: Similarity that ranks: euclidean, mahalanobis, pddm or local; empty: local if the run has it, or euclidean.
        k: Number of results.
        shortlist: How many of the nearest by distance are ranked.
        protocol: Which gallery: catalogue, unseen or known; empty: the catalogue if there is one.
        model: Model that made imported features: package.module:callable, a file or torchvision:NAME.
        csv: File to write the results to.
    """
    from pddm_lab.runs.compare import find_run
    from pddm_lab.runs.local import load_local
    from pddm_lab.runs.model import load_similarities, query_of
    from pddm_lab.update.serving import served

    searched = served(find_run(run, runs_root))
    gallery = searched.gallery(protocol or next(iter(searched.galleries()), "catalogue"))
    local, learned = load_local(searched), load_similarities(searched)
    similarities = {name: learned[name] for name in ("euclidean", *searched.learned)}
    structures = {} if local is None else {"local": local.structure}
    name = by or ("euclidean" if local is None else "local")
    if name not in (*similarities, *structures):
        raise RunError(unknown_name("similarity", name, [*similarities, *structures]))
    feature, pretrained, row = query_of(searched, gallery, what, model)
    others = [similarities[name]] if name in similarities else []
    result = gallery.search_by(feature, others, max(shortlist, k), row, structures.get(name), pretrained)
    distances, letter = -result.table.set_index("row")["euclidean"], EVERY[name].letter
    best = result.ranked(name, k)
    best = best.assign(
        distance=distances[best["row"]].to_numpy(), value=best["value"] * (-1) ** EVERY[name].is_distance
    )
    shown = ("distance",) if name == "euclidean" else ("distance", "value")
    rows = [
        (one.rank, printable(one.id), printable(one.class_name), *(f"{getattr(one, column):.4f}" for column in shown))
        for one in best.itertuples()
    ]
    print_table(("rank", "id", "class", "D", letter)[: 3 + len(shown)], rows)
    print(f"\nThe best of {len(gallery):,} items by {letter}, among the {len(result.table)} nearest by D.")
    print(f"{result.note}\n" if result.note else "", end="")
    if searched.is_labelled and rows:
        print(_class_of_query(gallery, feature, row, learned["euclidean"]))
    write_csv(best.drop(columns=["row", "rank_change"]), csv)


def _class_of_query(
    gallery: Gallery, feature: Float[np.ndarray, " dim"], row: int | None, euclidean: Similarity
) -> str:  # fmt: skip
    """What the query shows. D decides: to fit local structure takes much longer than the search."""
    from pddm_lab.analysis.decision import Decision, Range

    try:
        decision = Decision.fit(Range.of(gallery, euclidean), sample=_SAMPLE)
    except DataError as error:
        return str(error)
    first, probability, in_range = decision.of_query(gallery, euclidean, feature, row)
    shown = f"{printable(first)}, with a probability of {100 * probability:.0f} %"
    return f"By D it shows {shown}." if in_range else f"By D it is not in the range; the nearest class is {shown}."


def serve(
    run: RunName, host: str = "127.0.0.1", port: Port = 8000, api_key_file: str = "", workers: Count = 1,
    model: str = "", protocol: str = "", rate: CountOrNone = 100, at_once: Count = 32, megabytes: Count = 20,
    timeout: Count = 30, runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Serve a run's catalogue over HTTP: search by picture or item, and change it. /openapi.json describes it all.

    Of a run that was updated, the update that serves is taken, and the next one as soon as it serves; an update that
    you name is kept.

    Args:
        host: Address to listen on; any other than this machine's own needs an API key.
        port: Port to listen on.
        api_key_file: File with a key a line, which requests send as X-API-Key; empty: $PDDM_LAB_API_KEY, if it is set.
        workers: Processes that answer.
        model: Model that made imported features: package.module:callable, a file or torchvision:NAME.
        protocol: Which gallery: catalogue, unseen or known; empty: the catalogue if there is one.
        rate: Requests a second of one client, and twice as many at once; 0: any number.
        at_once: Requests that a worker works on at once; it refuses more.
        megabytes: Largest request, in MB.
        timeout: Seconds in which a request must arrive, and in which it must be answered.
    """
    from pddm_lab.runs.compare import find_run
    from pddm_lab.service.server import serve as serve_run
    from pddm_lab.service.settings import Settings

    named = find_run(run, runs_root)
    keys = str(typed_path(api_key_file).resolve()) if api_key_file else ""
    settings = Settings(
        str(named.path.resolve()), host, port, workers, keys, model, protocol, megabytes, rate, at_once, timeout
    )  # fmt: skip
    serve_run(settings)

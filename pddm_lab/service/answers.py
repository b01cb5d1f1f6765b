"""What the service answers, as pydantic models: they make the OpenAPI document, too."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pddm_lab.analysis.decision import Decision

NOT_IN_RANGE = "not in the range"


class Answer(BaseModel):
    """Base of the answers."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """An error."""

    error: str = Field(examples=["Unknown item 'apple/9.jpg': GET /v1/items lists all items."])
    """What was expected, what came, and what to do."""


class Hit(Answer):
    """An item that a search returns."""

    id: str = Field(examples=["apple/17.jpg"])
    class_name: str = Field(examples=["apple"])
    score: float = Field(description="Similarity to the query; larger = more similar.", examples=[-0.41])
    distance: float = Field(description="Euclidean distance D; smaller = more similar.", examples=[0.41])


class Decided(Answer):
    """The class of a query, or that it is not in the range."""

    answer: str = Field(description=f"The class, or {NOT_IN_RANGE!r}.", examples=["apple"])
    in_range: bool
    class_name: str = Field(description="Class of the most similar item.", examples=["apple"])
    probability: float = Field(
        ge=0, le=1, description="That this is its class, as if every second query were not in the range.",
        examples=[0.93],
    )  # fmt: skip
    similarity: str = Field(description="That decides.", examples=["euclidean"])
    false_accepts: float = Field(
        description="Share of the items that are accepted when their class is taken out of the catalogue.",
        examples=[0.05],
    )
    right: float = Field(description="Share of the items that are accepted and get their class.", examples=[0.81])
    items: int = Field(description="On which both shares were measured.", examples=[500])

    @classmethod
    def of(cls, decision: Decision, similarity: str, class_name: str, probability: float, in_range: bool) -> Decided:
        """The answer of a decision."""
        return cls(
            answer=class_name if in_range else NOT_IN_RANGE, in_range=in_range, class_name=class_name,
            probability=probability, similarity=similarity, false_accepts=decision.false_accepts, right=decision.hits,
            items=decision.items,
        )  # fmt: skip


class SearchAnswer(Answer):
    """The items nearest to a query, the most similar first."""

    run: str = Field(description="Whose model and catalogue answered.", examples=["demo-update-1"])
    similarity: str = Field(examples=["euclidean"])
    hits: list[Hit]
    decision: Decided | None
    no_decision: str = Field(description="Why there is no decision; empty if there is one.")
    note: str = Field(description="What limits the ranking, such as neighbourhoods that a change left stale.")
    items: int = Field(description="Of the catalogue that was searched.", examples=[5421])
    change: int = Field(description="Number of the catalogue's last change.", examples=[3])


class Item(Answer):
    """An item of the catalogue."""

    id: str = Field(examples=["apple/17.jpg"])
    class_name: str = Field(examples=["apple"])


class Items(Answer):
    """A page of the items, in the order of the catalogue."""

    items: list[Item]
    total: int
    page: int
    size: int


class Skipped(Answer):
    """A picture that did not become an item."""

    file: str
    reason: str


class Changed(Answer):
    """What a change did."""

    what: str = Field(examples=["added 1 item"])
    ids: list[str] = Field(description="Items that were added, updated or removed.", examples=[["apple/17.jpg"]])
    skipped: list[Skipped] = Field(default_factory=list)
    items: int = Field(description="Of the catalogue now.")
    change: int = Field(description="Number of this change.")


class ClassCount(Answer):
    """A class with its items."""

    name: str = Field(examples=["apple"])
    items: int = Field(examples=[61])


class Classes(Answer):
    """The classes of the catalogue, by name."""

    classes: list[ClassCount]


class Change(Answer):
    """A change of the catalogue that can be undone."""

    change: int
    time: str = Field(description="UTC, as ISO 8601.")
    what: str
    reason: str
    items_before: int
    recall: dict[str, tuple[float, float]] = Field(
        description="R@1 of the saved queries before and after it, by similarity: measured in the background, changes "
        "that come meanwhile together with the last of them. Empty where no queries are saved.",
        examples=[{"euclidean": (0.935, 0.93)}],
    )


class Changes(Answer):
    """The changes, the last one first."""

    changes: list[Change]


class Health(Answer):
    """Whether the service lives, or is ready."""

    status: str = Field(examples=["ready"])


class Version(Answer):
    """What answers here."""

    version: str = Field(description="Of PDDM Lab.")
    api: str = Field(examples=["v1"])
    run: str = Field(description="That serves: another one as soon as an update does.", examples=["demo-update-1"])
    model: str = Field(description="SHA-256 of the weights that make its vectors; empty where they were imported.")
    gallery: str = Field(examples=["catalogue"])
    similarities: list[str] = Field(examples=[["euclidean", "mahalanobis", "pddm", "local"]])
    pictures: str = Field(description="Why pictures can't be searched with; empty if they can.")

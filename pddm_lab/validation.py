"""Choices checked by pydantic, with messages that name the flag: what was expected, what came."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from pddm_lab.errors import ConfigError, valid_text

if TYPE_CHECKING:
    from pydantic import BaseModel


def validated(choices: Any) -> dict[str, Any]:
    """The values of a dataclass's fields, checked against their types and the ranges beside them.

    Args:
        choices: an instance; `Annotated[int, annotated_types.Ge(1)]` as the type of a field states a range.

    Raises:
        ConfigError: a value of another type, out of range, or not finite; it names the field as a flag.
    """
    from pydantic import ValidationError

    model = _model_of(type(choices))  # type: ignore[arg-type]
    try:
        return dict(model(**{field.name: getattr(choices, field.name) for field in dataclasses.fields(choices)}))
    except ValidationError as error:
        raise ConfigError(_message(model, error.errors()[0])) from None  # type: ignore[arg-type]


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose numbers are checked against the ranges beside their types before it begins."""

    @functools.wraps(command)
    def run(*values: Any, **named: Any) -> None:
        arguments = inspect.signature(command).bind(*values, **named).arguments
        hints = get_type_hints(command, include_extras=True)
        numbers = {name: value for name, value in arguments.items() if isinstance(value, (int, tuple))}
        validated(dataclasses.make_dataclass("Numbers", [(name, hints[name]) for name in numbers])(**numbers))
        command(*values, **named)

    return run


def flag(name: str) -> str:
    """A field as a flag of the command line."""
    return "--" + name.replace("_", "-")


@functools.cache
def _model_of(kind: type) -> type[BaseModel]:
    from pydantic import AfterValidator, ConfigDict, create_model

    hints = get_type_hints(kind, include_extras=True)
    text = Annotated[str, AfterValidator(_writable)]
    kinds = {name: text if hint is str else hint for name, hint in hints.items()}
    fields: dict[str, Any] = {field.name: (kinds[field.name], ...) for field in dataclasses.fields(kind)}
    return create_model(kind.__name__, __config__=ConfigDict(strict=True, allow_inf_nan=False), **fields)


def _writable(text: str) -> str:
    if "\0" in text or valid_text(text) != text:
        raise ValueError
    return text


def _message(model: type[BaseModel], error: dict[str, Any]) -> str:
    name, value, problem = str(error["loc"][0]), error["input"], error["type"]
    kind = model.model_fields[name].annotation
    if problem == "literal_error":
        expected = f"one of {error['ctx']['expected'].replace(' or ', ', ')}"
    elif problem in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        of_members = [part for member in get_args(kind) for part in getattr(member, "__metadata__", ())]
        expected = _range(model.model_fields[name].metadata or of_members)
    elif problem == "finite_number" or (kind is float and isinstance(value, int) and not isinstance(value, bool)):
        expected = "a finite number"  # an int of hundreds of digits is too large for a float
    elif problem == "value_error":
        expected = "text without null characters and bytes that are no text"
    else:
        return f"{flag(name)} expects {getattr(kind, '__name__', kind)}, got {_shown(value)} ({type(value).__name__})."
    shown = _shown(value) if not isinstance(value, int) or abs(value) < 1e16 else "a number of more than 16 digits"
    return f"{flag(name)} expects {expected}, got {shown}."


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python doesn't write out an integer of more than 4300 digits
        return "a value with a very large number"


def _range(metadata: list[Any]) -> str:
    """The bounds of a field in words."""
    names = ("ge", "gt", "le", "lt")
    bounds = {name: bound for one in metadata for name in names if (bound := getattr(one, name, None)) is not None}
    low = f"{bounds['ge']} or more" if "ge" in bounds else f"more than {bounds['gt']}"
    if "lt" in bounds:
        return f"{low}, but less than {bounds['lt']}"
    return f"{low}, at most {bounds['le']}" if bounds.get("le", 10**9) < 10**9 else low

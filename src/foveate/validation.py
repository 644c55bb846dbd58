"""Values that a person gave, as a pydantic model; or one line on the first that it refuses."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from foveate.errors import ConfigError
from foveate.records import printable, problem_in_words
from foveate.settings import NOT_A_NUMBER
from foveate.suggestions import close_to

Model = TypeVar("Model", bound=BaseModel)
_MOST_TOLD = 1_000
"""Characters of a message about a setting: the value that it names can be of any length."""


def validated(model: type[Model], values: Mapping[str, Any], *, within: str = "") -> Model:
    """`values` as a `model`.

    Raises:
        ConfigError: for the first of them that it refuses, `within` what they come from.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _refusal(error.errors()[0], model, within) from None


def check_values(model: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Refuse a value that `model` refuses, although others that it needs are not known yet.

    Raises:
        ConfigError: for the first of them.
    """
    try:
        model.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            if problem["type"] != "missing":
                raise _refusal(problem, model) from None


def _refusal(problem: ErrorDetails, model: type[BaseModel], within: str = "") -> ConfigError:
    """A problem that pydantic has with a value, in one line."""
    place = problem["loc"]
    where = ".".join(map(str, place[:-1] if place and isinstance(place[-1], int) else place))
    # Of a whole group of settings the message itself names the one that is wrong.
    if where and problem["type"] not in ("missing", NOT_A_NUMBER):
        where += f"={short(repr(problem['input']))}"
    said = problem_in_words(problem)
    said = said if said != problem["msg"] else said.lower()
    if problem["type"] == "literal_error":
        said += close_to(problem["input"], re.findall(r"'([^']+)'", said))
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        said += close_to(str(problem["loc"][0]), model.model_fields)
    told = printable(": ".join(part for part in (within, where, said) if part))
    return ConfigError(told if len(told) <= _MOST_TOLD else f"{told[:_MOST_TOLD]}…")


def short(text: str) -> str:
    """The beginning of a value, for a message."""
    return text if len(text) <= 80 else f"{text[:80]}…"

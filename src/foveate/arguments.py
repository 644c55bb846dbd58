"""Arguments of the public functions: of another type than their annotations say, they are refused in one line;
numbers of other libraries become Python's own, and `~` in paths is the home folder.
"""

import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from foveate.errors import ConfigError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Where = TypeVar("Where", bound=str | Path)

_KINDS: Mapping[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a text"),
    Path: (Path, "a path"),
    type(None): (type(None), "None"),
}
"""Of each annotation the type that a value must have, and its words."""


def typed(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """`function`, which takes no argument of another type than it is annotated with.

    It gets each of them `plain`, and paths without `~`.
    What is annotated with other types than the plain ones and collections is left to the function. A number is no
    bool, and `"no"` is no False: what seems to work would open a test split.

    Raises:
        ConfigError: for the first argument that does not fit.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        annotations = _annotations(function)
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            given.arguments[name] = plain(value)
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                continue
            if not _fits(value, annotations[name]):
                raise ConfigError(f"{name}={repr(value)[:80]}: give {' or '.join(_words(annotations[name]))}")
            given.arguments[name] = _expanded(given.arguments[name], annotations[name])
        return function(*given.args, **given.kwargs)

    return checked


def at_home(path: Where) -> Where:
    """A path without `~`: no shell expands it in `--runs=~/runs`, and Python does not either."""
    return type(path)(os.path.expanduser(str(path)))  # noqa: PTH111 (of a user who is not there it leaves the name)


def plain(value: Any) -> Any:
    """A value as it can be written down, at any depth: NumPy's numbers and texts as Python's own, and a group of
    settings, as `StageConfig`, as a mapping. What is neither is given back as it is.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # By its method: pydantic takes long to import, and where it was not there is no such group.
    return value.model_dump(mode="json") if hasattr(type(value), "model_dump") else value


@cache
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function)


def _fits(value: object, annotation: Any) -> bool:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if annotation in _KINDS:
        kind = _KINDS[annotation][0]
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return not isinstance(annotation, type) or _is_protocol(annotation) or isinstance(value, annotation)


def _expanded(value: Any, annotation: Any) -> Any:
    """A value that fits, without `~` where it is a path, or paths."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Path or (origin in (Union, types.UnionType) and Path in inner):
        return at_home(value) if isinstance(value, str | Path) else value
    if isinstance(origin, type) and issubclass(origin, Iterable) and Path in get_args(inner[0]):
        return [_expanded(each, inner[0]) for each in value]
    return value


def _is_protocol(annotation: type) -> bool:
    """Whether it is satisfied by its methods, which `isinstance` cannot see."""
    return bool(getattr(annotation, "_is_protocol", False))


def _words(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        words = [word for each in get_args(annotation) for word in _words(each)]
        return [word for word in words if word != "None"] or words
    if annotation in _KINDS:
        return [_KINDS[annotation][1]]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return ["a mapping"]
    return ["a list"] if isinstance(origin, type) else [getattr(annotation, "__name__", str(annotation))]

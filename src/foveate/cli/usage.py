"""What is said to a command line that cannot be read: plain sentences of ours in the place of the parser's."""

import contextlib
import os
import re
from collections.abc import Sequence
from typing import Any

import typer

from foveate.config import setting_path
from foveate.errors import ConfigError
from foveate.suggestions import close_to

_KINDS = {"valid integer": "a whole number", "valid number": "a number", "finite number": "a number"}
"""What the parser's message says of the kind of value that it needs, and what we say."""


_VALUE = re.compile(r"""(?P<name>[\w.]+)=(?P<value>'[^']*'|"[^"]*"|\([^)]*\)|\[[^\]]*\]|[^\s:,]+)""")
"""What the message about a value begins with, such as `train.lr=-1`."""
_OPTIONS = {
    "arms": "arm",
    "hang_limit_s": "hang_limit",
    "num_classes": "classes",
    "subsets": "subset",
}
"""Options that have another name than the argument which they are for; see `as_given`."""


def usage_told(error: typer.TyperException, arguments: Sequence[str]) -> str:
    """One line on what is wrong with the `arguments` of a command, and how to mend it.

    Args:
        error: that the parser raised.
    """
    if dashed := next((word for word in arguments if word.startswith("-") and os.path.lexists(word)), None):
        return f"{dashed} is read as an option: give the file as ./{dashed}"
    context: Any = getattr(error, "ctx", None)
    # The parser's complaint about an option's value knows no command.
    command = context.command_path if context is not None else " ".join(["foveate", *arguments[:1]])
    parameter = getattr(error, "param", None)
    option = getattr(error, "option_name", None)
    if parameter is not None and error.message:
        kind = next((ours for theirs, ours in _KINDS.items() if theirs in error.message), None)
        needed = error.message if kind is None else f"give {kind}"
        return f"{_given(parameter, arguments)}: {needed}{_means(parameter)}"
    if parameter is not None:
        told = f"{_name(parameter)} is missing{_means(parameter)}"
    elif option is not None:
        told = _of_option(option, error, context)
    else:
        told = _of_words(error, command, context)
    asked = "" if told.endswith("?") else ";"
    return f"{told}{asked} `{command} --help` lists the {'options' if ' ' in command else 'commands'}"


def as_given(message: str, arguments: Sequence[str], command: Any) -> str:
    """A message about a value, which begins with the library's name for it, with the option in its place.

    Args:
        arguments: of the `command`, as the parser has it; None: there is none.
    """
    found = _VALUE.match(message)
    if found is None or command is None:
        return message
    name = found["name"].rpartition(".")[2]
    option = "--" + _OPTIONS.get(name, name).replace("_", "-")
    parameter = next((each for each in command.params if option in each.opts), None)
    if parameter is None or not any(word.partition("=")[0] in parameter.opts for word in arguments):
        return message
    plain = re.fullmatch(r"'([\w./:-]+)'", found["value"])
    return f"{option} {plain[1] if plain else found['value']}{message[found.end() :]}"


def _of_words(error: typer.TyperException, command: str, context: Any) -> str:
    """What is wrong with words that are no options."""
    if found := re.match(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", error.message):
        return f"{found[1]!r} is more than `{command}` takes: a name with spaces needs quotation marks"
    if found := re.match(r"No such command '(.*?)'", error.message):
        known = context.command.list_commands(context) if context is not None else ()
        return f"there is no command {found[1]!r}{close_to(found[1], known)}"
    return " ".join(error.format_message().split()).rstrip(".")


def _of_option(option: str, error: typer.TyperException, context: Any) -> str:
    """What is wrong with an option: its name is unknown, its value is missing, or it takes no value."""
    if "requires" in error.message:
        return f"{option} needs a value after it"
    if "does not take a value" in error.message:
        return f"{option} takes no value: leave out what follows the ="
    parameters = context.command.params if context is not None else []
    flags = [each.removeprefix("--") for one in parameters for each in one.opts if each.startswith("--")]
    name = option.lstrip("-").replace("-", "_")
    if "set" in flags:
        with contextlib.suppress(ConfigError):
            setting_path(name)
            return f"{option} is a setting: give it as --set {name}=VALUE"
    close = close_to(name, [flag.replace("-", "_") for flag in flags]).replace("_", "-")
    return f"there is no option {option}" + close.replace("'", "--", 1).replace("'", "")


def _given(parameter: Any, arguments: Sequence[str]) -> str:
    """The option with the value that it was given, where that can be told."""
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option in parameter.opts:
            value = value if equals else next(iter(arguments[place + 1 :]), "")
            return f"{option} {value}"
    return _name(parameter)


def _name(parameter: Any) -> str:
    """An option by its long name; an argument as its command's help has it."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(max(parameter.opts, key=len))


def _means(parameter: Any) -> str:
    """What the help says of it."""
    text = getattr(parameter, "help", None)
    return f" ({text.rstrip('.')})" if text else ""

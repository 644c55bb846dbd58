"""The exception tree: every error a user can cause or fix is a FoveateError with one clear line."""

__all__ = [
    "CheckpointError",
    "ComparisonError",
    "ConfigError",
    "DataError",
    "ExportError",
    "FoveateError",
    "Interrupted",
    "OutOfMemoryError",
    "OutputError",
    "StudyError",
    "TrainingError",
]


def one_line(error: BaseException, most: int = 200) -> str:
    """What an error says, as one line of at most `most` characters; its type where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class FoveateError(Exception):
    """What went wrong, in one line that carries the fix. `exit_code` is what the command line returns."""

    exit_code = 2


class ConfigError(FoveateError):
    """A setting, flag, preset or device that cannot be used."""


class DataError(FoveateError):
    """A data set that cannot be read or does not suit the request."""


class CheckpointError(FoveateError):
    """A checkpoint or run folder that is damaged, foreign, or of another data set."""


class OutputError(FoveateError):
    """A place that cannot be written: no permission, no space."""


class TrainingError(FoveateError):
    """Training itself failed, for example by a loss that is not finite."""

    exit_code = 1


class OutOfMemoryError(TrainingError):
    """Memory ran out, which it may not do on another machine or with fewer workers."""


class StudyError(FoveateError):
    """A study that cannot end well, as too many of its trials failed."""

    exit_code = 1


class ComparisonError(FoveateError):
    """A comparison of which no run came to an end."""

    exit_code = 1


class ExportError(FoveateError):
    """A network that cannot be written as a file that gives the same answers."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the state was saved; its text is the command that continues the work."""

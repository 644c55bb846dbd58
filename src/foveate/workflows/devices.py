"""One training by several devices: which requests they can share, and starting it from Python."""

import shlex
import sys

from foveate.errors import ConfigError, Interrupted, TrainingError
from foveate.execution.devices import run_on_devices
from foveate.workflows.request import Display


def check_shared(devices: int, *, folds: bool, timed: bool) -> None:
    """Raise ConfigError for several devices where they would not train one network of a known length."""
    if devices > 1 and folds:
        raise ConfigError("devices and folds: folds are trained side by side by --workers: leave --devices out")
    if devices > 1 and timed:
        raise ConfigError("devices and time: several devices are not measured first: give epochs or images_seen")


def run_command(command: str, devices: int, display: Display | None) -> str:
    """Run a command of `foveate` by one process for each device, and wait for its end.

    Args:
        display: what the first process prints is shown where it is not None; it cannot go to the display itself.

    Returns:
        What the first process handed back.

    Raises:
        ConfigError: where the command ends as a wrong request does.
        TrainingError: where it fails.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    words = [sys.executable, "-P", "-m", *shlex.split(command)]
    ended = run_on_devices(words, devices, quiet=display is None)
    line = ended.errors.removeprefix("foveate: ").strip()
    if ended.status == 0:
        return ended.result
    if ended.status == 130:
        raise Interrupted(line.rpartition("continue with: ")[2])
    raise (ConfigError if ended.status == ConfigError.exit_code else TrainingError)(line)

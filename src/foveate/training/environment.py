"""What a figure depends on besides the settings."""

import contextlib
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def environment(device: torch.device, devices: int = 1) -> dict[str, Any]:
    """What a figure depends on besides the settings: versions, processor, threads, device.

    Args:
        devices: that share the work; `device` and the threads are those of the first.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "devices": devices,
        "tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE"),  # which NVIDIA's libraries obey, not the setting
        "versions": {
            name: _version(name) for name in ("foveate", "torch", "numpy", "pillow", "simplejpeg", "scikit-learn")
        },
    }


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any], *, continued: bool) -> list[str]:
    """Lines that say how a resumed run may differ from one that was never stopped, by where it is resumed.

    Args:
        before: `environment` where the run began, with those where it was resumed in `resumed`.
        now: `environment` here.
        continued: whether its random generators go on from where they were.
    """
    last = [before, *places_resumed(before)][-1]
    if not continued:
        return [
            f"the run was on {last.get('device')} and goes on on {now['device']}, whose random numbers differ: "
            "what is left is drawn anew, and the result is not bit for bit that of an unbroken run"
        ]
    if (then_devices := last.get("devices", 1)) != now["devices"]:
        return [
            f"the run was on {then_devices} device{'s' * (then_devices != 1)} and goes on on {now['devices']}, "
            "which share batches and draw dropout otherwise: the result is not bit for bit that of an unbroken run"
        ]
    versions = last.get("versions")
    then, here = {**last, **(versions if isinstance(versions, Mapping) else {})}, {**now, **now["versions"]}
    changed = [
        f"{name.replace('_', ' ')} (was {then[name]}, is {here[name]})"
        for name in ("threads", "device", "processor", "torch", "tf32_override")
        if name in then and then[name] != here[name]
    ]
    if not changed:
        return []
    return [
        f"the run goes on with other {', '.join(changed)}: its last bits may differ from those of an unbroken run"
    ]


def places_resumed(before: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Each `environment` in which a run was resumed, where its own differed; of a file that may hold anything."""
    places = before.get("resumed")
    return [each for each in places if isinstance(each, Mapping)] if isinstance(places, list) else []


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

"""A script as a user writes it, never run: mypy reads it in `make check`.

Each `type: ignore` proves that a mistake is caught, as mypy refuses one that is not needed.
"""

import foveate


def train_twice() -> float:
    run = foveate.train("digits", preset="small", epochs=3, attention="luong", augmentations=["erase"])
    foveate.train("digits", epohcs=3)  # type: ignore[call-arg]
    foveate.train("digits", epochs="three")  # type: ignore[arg-type]
    foveate.summarize(preset="paper", optimizer="adam")  # type: ignore[arg-type]
    again = foveate.resume(run, device="cpu")
    accuracy: float = foveate.evaluate(again).metrics["validation"]["accuracy"]
    return accuracy


def refused() -> str:
    try:
        foveate.train("nowhere")
    except foveate.DataError as error:
        return str(error)
    return ""

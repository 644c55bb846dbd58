"""What a run is, beside its settings, and when the test split was opened."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from foveate.data.dataset import Dataset
from foveate.data.folds import MOST_FOLDS
from foveate.records import ClassNames, Digest, Record


class TestOpening(Record):
    """One opening of the test split. It is recorded before the split is opened, so that a kill hides nothing."""

    time: str
    command: str
    own: bool = True
    """Whether it is that of the data which the network was trained on; earlier versions did not say."""

    @classmethod
    def now(cls, command: str, *, own: bool = True) -> "TestOpening":
        """The opening that `command` is about to do."""
        return cls(time=datetime.now(UTC).isoformat(timespec="seconds"), command=command, own=own)


class FoldsRecord(Record):
    """The folds of a cross-validated run, which lie in `folds.npy`."""

    count: Annotated[int, Field(strict=True, ge=2, le=MOST_FOLDS)]
    sha256: Digest
    """Of that file."""
    threads: Annotated[int, Field(strict=True, ge=1)] | None = None
    """That each fold is trained with, as sums change with them; None: a run of an earlier version."""


class RunRecord(Record):
    """What a run is, beside its settings: the data it belongs to, and how often its test split was opened."""

    command: str
    dataset: str = Field(min_length=1)
    """A known name or an absolute path."""
    data_dir: str | None
    fingerprint: str
    class_names: ClassNames
    final: bool
    """Trained on train + validation, so that there is nothing to validate on."""
    trained_images: int | None = Field(default=None, ge=1)
    """How many images were trained on; None: a run of an earlier version, or a measurement on other data."""
    splits: str | None = None
    """sha256 of `splits.npy`, which says which images are in which split; None: a run of an earlier version."""
    folds: FoldsRecord | None = None
    """None: it is not cross-validated."""
    test_openings: tuple[TestOpening, ...] = ()
    last_kept_as_best: bool = False
    """Of a run with `keep=last`: its last epoch has ended, and the network is in `weights/best.safetensors`."""
    finished: bool = False
    """Trained to its end, measured and reported."""

    @property
    def opened(self) -> bool:
        """Whether the test split of the run's own data was opened."""
        return any(opening.own for opening in self.test_openings)

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        data_dir: Path | str | None,
        command: str,
        *,
        final: bool,
        trained_images: int | None = None,
    ) -> "RunRecord":
        """The record of a run that begins, without the digest of its splits."""
        return cls(
            command=command,
            dataset=dataset.location,
            data_dir=str(Path(data_dir).resolve()) if data_dir else None,
            fingerprint=dataset.fingerprint,
            class_names=dataset.class_names,
            final=final,
            trained_images=trained_images,
        )

"""What a worker is given of a training that is part of a study or a comparison, its data set, and its cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveate.config import Config
from foveate.data.dataset import Dataset, KnownData, load_known
from foveate.data.splits import SPLITS_FILE, StoredSplits
from foveate.execution.campaign import CampaignConfig
from foveate.progress import Track
from foveate.records import Count, Record, Seconds
from foveate.settings import DataConfig, Section
from foveate.training.fit import DRAWS
from foveate.training.state import EpochResult


def shared_fields(config: CampaignConfig, folder: Path) -> dict[str, Any]:
    """The fields that all jobs of the study or the comparison in `folder` have in common."""
    return {
        "dataset": config.data,
        "data_dir": config.data_dir,
        "fingerprint": config.fingerprint,
        "splits": str(folder.resolve() / SPLITS_FILE) if config.splits else None,
        "splits_sha256": config.splits,
        "draws": config.draws,
    }


class TrainingCost(Record):
    """What a training took."""

    train_s: Seconds
    images_shown: Count

    @classmethod
    def of(cls, history: Sequence[EpochResult]) -> "TrainingCost":
        """The sums over all epochs."""
        shown = sum(epoch.seconds * epoch.images_per_s for epoch in history)
        return cls(train_s=sum(epoch.seconds for epoch in history), images_shown=round(shown))


class TrainingJob(Section):
    """Settings, data and a folder: what a trial and the run of an arm have in common."""

    config: Config
    dataset: str
    data_dir: str | None
    fingerprint: str
    splits: str | None = None
    """The file of the splits that all jobs share; None: an earlier version kept none."""
    splits_sha256: str | None = None
    subset: int | None
    """How many images to train on; None: all."""
    folder: str
    """Where this training alone keeps its files."""
    draws: int = DRAWS
    """Version of what is drawn from which seed: that of the study or the comparison."""

    def load_dataset(self, owner: str, track: Track) -> Dataset:
        """The whole data set; the last two stay in memory, as a worker's next job most often needs one of them.

        Args:
            owner: names the study or the comparison in a message.

        Raises:
            CheckpointError: when it is not the data set that `owner` began with any more.
        """
        config = self.config.data
        key = (self.dataset, self.data_dir, self.fingerprint, self.splits, config)
        if key not in _loaded:
            stored = None
            if self.splits and self.splits_sha256:
                stored = StoredSplits(Path(self.splits), self.splits_sha256)
            known = KnownData(self.fingerprint, stored, owner)
            dataset = load_known(self.dataset, config, known, data_dir=self.data_dir, track=track)
            while len(_loaded) > 1:  # the trials of one study may see images of two sizes
                del _loaded[next(iter(_loaded))]
            _loaded[key] = dataset
        return _loaded[key]


_loaded: dict[tuple[str, str | None, str, str | None, DataConfig], Dataset] = {}

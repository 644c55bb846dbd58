"""What the data decides of an arm, and what each of its runs does."""

import torch

from foveate.comparison.arms import parse_arm
from foveate.data.dataset import load_dataset
from foveate.settings import DataConfig
from foveate.workflows.comparison_arms import resolved_arms


def test_what_follows_from_the_number_of_images_is_left_to_each_run() -> None:
    dataset = load_dataset("digits", DataConfig(size=16))
    asked = [parse_arm("small,class_weights=balanced", {}), parse_arm("minute", {})]
    for subsets in ((None,), (40, None)):
        balanced, minute = resolved_arms(asked, dataset, torch.device("cpu"), subsets)
        assert balanced.config.train.class_weights == "balanced"
        assert minute.config.train.class_weights is None
        assert minute.config.train.passes_per_epoch is None
        assert balanced.config.data.size == 16

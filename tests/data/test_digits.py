import numpy as np
from sklearn.datasets import load_digits

from foveate.data.digits import open_digits
from foveate.data.splits import UNDECLARED


def test_the_digits_are_scikit_learns() -> None:
    source, expected = open_digits(), load_digits()
    images = np.array(list(source.blocks[0].images()))
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert abs(images / (255 / 16) - expected.images).max() < 0.04
    assert source.labels.tolist() == expected.target.tolist()
    assert source.class_names == tuple("0123456789")
    assert not source.mirror_safe
    assert (source.declared == UNDECLARED).all()
    assert len(source.ids) == len(set(source.ids)) == 1797

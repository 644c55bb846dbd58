import subprocess
import sys

import numpy as np
import pytest
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


def test_they_are_read_without_importing_scikit_learn() -> None:
    code = "from foveate.data.digits import open_digits; open_digits(); import sys; exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_scikit_learn_that_keeps_the_file_elsewhere_is_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    here = list(open_digits().blocks[0].images())
    monkeypatch.setattr("foveate.data.digits.find_spec", lambda _: None)
    assert np.array_equal(list(open_digits().blocks[0].images()), here)

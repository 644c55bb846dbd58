"""A predictor gives the same answer for every form of an image, and says why it has none."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from foveate.checkpoint import checkpoint_metadata
from foveate.confidence import Confidence, Unlike, energy
from foveate.data.decode import decode_file, resize_array
from foveate.errors import CheckpointError, ConfigError, DataError
from foveate.inference.engine import BATCH
from foveate.inference.predictor import Prediction, Predictor
from foveate.model.build import build_model
from foveate.preprocessing import Fit, Preprocessing
from foveate.settings import ModelConfig
from foveate.tensors import save_tensors

CLASSES = ("cat", "dog", "fox")
CONFIG = ModelConfig(stages=[{"filters": 4, "kernels": [3]}], attention="luong", hidden=8, attention_stage=1)
FITTED = Confidence(temperature=2.0, scores=(0.2, 0.4, 0.6, 0.8), unlike=Unlike(threshold=-100.0, images=200))


def saved(path: Path, confidence: Confidence = FITTED, fit: Fit = "crop") -> Path:
    network = build_model(CONFIG, num_classes=3, size=16)
    card = checkpoint_metadata(CONFIG, CLASSES, Preprocessing(16, fit))
    save_tensors(path, network.state_dict(), {**card, "confidence": confidence.model_dump(mode="json")})
    return path


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.load(saved(tmp_path / "weights.safetensors"))


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """Of another size than the network's, turned by its EXIF data."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "photograph.png", exif=exif)
    return tmp_path / "photograph.png"


def same(one: Prediction, other: Prediction) -> bool:
    """But for the last digits, which depend on how many images are asked about at once."""
    given = (one.label, one.unlike, one.set) == (other.label, other.unlike, other.set)
    return given and one.probability == pytest.approx(other.probability, rel=1e-5)


@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_path_bytes_a_pillow_image_and_pixels_are_one_image(fit: Fit, tmp_path: Path, photograph: Path) -> None:
    predictor = Predictor.load(saved(tmp_path / "weights.safetensors", fit=fit))
    turned = np.asarray(Image.open(photograph).transpose(Image.Transpose.ROTATE_270))
    forms: list[Any] = [photograph, str(photograph), photograph.read_bytes(), Image.open(photograph), turned]
    found = predictor.predict(forms, coverage=0.5)
    assert all(same(each, found[0]) for each in found)
    assert [each.id for each in found] == [str(photograph), str(photograph), "2", "3", "4"]
    assert same(predictor.predict(photograph, coverage=0.5)[0], found[0])
    pixels = resize_array(turned, Preprocessing(16, fit))
    assert same(predictor.of_pixels(["decoded"], pixels[None], {}, coverage=0.5)[0], found[0])


def test_it_says_what_the_network_and_its_confidence_say(predictor: Predictor, photograph: Path) -> None:
    (found,) = predictor.predict(photograph, coverage=0.6)
    pixels = torch.tensor(decode_file(photograph, Preprocessing(16))).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = build_model(CONFIG, num_classes=3, size=16).eval()(pixels).numpy()
    probabilities = FITTED.probabilities(logits)[0]
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, probabilities)
    assert found.label == CLASSES[logits.argmax()]
    assert found.probability == pytest.approx(probabilities.max())
    assert found.unlike_score == pytest.approx(energy(logits)[0])
    assert found.unlike is bool(energy(logits)[0] > -100)
    wanted = FITTED.sets(probabilities[None], 0.6)[0]
    assert found.set is not None
    assert set(found.set) == {name for name, chosen in zip(CLASSES, wanted, strict=True) if chosen}
    assert found.set[0] == found.label


def test_files_come_in_their_order_with_reasons_for_the_bad_ones(predictor: Predictor, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    paths = [str(tmp_path / f"{number}.png") for number in range(2 * BATCH + 3)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    Path(paths[3]).write_bytes(b"GIF89a")
    found = list(predictor.predict_files(iter(paths), workers=2))
    assert [each.id for each in found] == paths
    assert [place for place, each in enumerate(found) if each.reason] == [3]
    assert found[3].label is None
    plain = predictor.predict(paths)
    for one, other in zip(plain, found, strict=True):
        assert one.label == other.label
        assert one.reason or one.probability == pytest.approx(other.probability, rel=1e-5)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros(8, np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
    ],
)
def test_an_array_that_is_no_image_is_refused(predictor: Predictor, array: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="is not an image: give uint8 pixels"):
        predictor.predict([array])


def test_a_pillow_image_of_more_than_8_bits_is_not_made_black(predictor: Predictor) -> None:
    (found,) = predictor.predict(Image.fromarray(np.full((8, 8), 2000, np.uint16)))
    assert found.reason == "Pillow's mode I;16 has more than 8 bits: give the file, or its bytes"


def test_sets_that_it_cannot_give_are_refused_with_the_fix(tmp_path: Path, predictor: Predictor) -> None:
    plain = Predictor.load(saved(tmp_path / "plain.safetensors", Confidence()))
    with pytest.raises(ConfigError, match="no prediction sets"):
        plain.predict([], coverage=0.9)
    with pytest.raises(ConfigError, match=r"coverage=95: give a share above 0 and below 1, such as 0\.95"):
        predictor.predict([], coverage=95)
    (found,) = plain.predict(np.zeros((16, 16, 3), np.uint8))
    assert (found.set, found.unlike) == (None, None)


@pytest.mark.parametrize("name", ["missing", "missing.safetensors", "missing.onnx", "", "."])
def test_what_is_no_model_is_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as error:
        Predictor.load(name)
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there on this machine: use cpu or auto"):
        Predictor.load(saved(tmp_path / "a.safetensors"), device="cuda:7")
    assert Predictor.load(tmp_path / "a.safetensors", device="auto").class_names

"""The proof of an exported file: that it gives what the trained network gives, within bounds that are stated."""

import numpy as np
from numpy.typing import NDArray

from foveate.inference.onnx import Outputs
from foveate.metrics import wilson_ends
from foveate.records import Accuracy, Count, Digest, Line, Record

MARGIN = 1e-4
"""Two classes whose logits differ by less are as likely as each other: their order may turn by rounding alone."""
LOST_POINTS = 0.5
STANDARD_ERRORS = 2.0
BOUNDS = {
    "fp32": f"The class is the same for every image whose two highest logits differ by more than {MARGIN:g}.",
    "int8": f"The accuracy is not lower by more than {LOST_POINTS:g} points and, at once, by more than "
    f"{STANDARD_ERRORS:g} standard errors of the paired difference.",
}
"""The bound that a file must keep, by its precision."""

_TRAINED_ON = {
    True: "the network was not trained on these images",
    None: "it is not known whether the network was trained on these images",
    False: "the network was also trained on these images: the accuracies are too high, but the comparison holds",
}
"""By whether the images were held out."""


class Score(Record):
    """Share of images that are classified right, and its 95 % interval (Wilson)."""

    accuracy: Accuracy
    interval: tuple[Accuracy, Accuracy]

    @property
    def words(self) -> str:
        """The accuracy and its interval."""
        return f"accuracy {self.accuracy:.4f} ({self.interval[0]:.4f} to {self.interval[1]:.4f})"


class Differences(Record):
    """The largest difference to the trained network, of any image and class."""

    logits: float
    probabilities: float
    unlike: float


class Measured(Record):
    """A file beside the trained network, on the images of the proof."""

    largest_difference: Differences
    equal_classes: Accuracy
    """Of all images."""
    unequal_beyond_margin: Count
    """Images of another class although the two highest logits of the trained network differ by more than 1e-4."""
    score: Score
    lost_points: float
    """Accuracy lost, in points; below 0 where it gained."""
    standard_error_points: float
    """Of that, over images, paired."""
    most_lost_points: float
    """The largest loss that this number of images cannot exclude: two standard errors more, or three images where
    all agree (the rule of three)."""
    passed: bool


class FileProof(Record):
    """An exported file and what was measured of it; None where it was exported unproved."""

    name: Line
    precision: Line
    bytes: Count
    sha256: Digest
    bound: Line
    measured: Measured | None


class ProofData(Record):
    """The images of the proof."""

    name: Line
    split: Line
    images: Count
    fingerprint: Digest
    held_out: bool | None
    """Whether the network was not trained on them; None where that is not known."""
    calibrated_on: Line | None = None
    """The number and the split of the images on which the ranges of 8-bit numbers were measured."""

    @property
    def trained_on(self) -> str:
        """Whether the network was trained on them, and what follows for the accuracies, in words."""
        return _TRAINED_ON[self.held_out]


class Certificate(Record):
    """What an export proved, as `certificate.json` holds it."""

    model: Line
    weights: Digest
    classes: Count
    size: Count
    date: Line
    proved: bool
    passed: bool
    """Whether every file kept its bound; true where nothing was to be proved."""
    data: ProofData | None
    torch: Score | None
    """Of the trained network, in 32-bit numbers on the CPU."""
    files: tuple[FileProof, ...]
    versions: dict[str, str]

    @property
    def lines(self) -> list[str]:
        """Each file beside the trained network, in words."""
        if self.torch is None:
            return ["unproved: nobody measured whether the file gives what the trained network gives"]
        lines = []
        if self.data is not None:
            lines.append(f"on {self.data.images:,} {self.data.split} images of {self.data.name}:")
            lines += [] if self.data.held_out else [self.data.trained_on]
            lines.append(f"torch: {self.torch.words}")
        for file in self.files:
            if (found := file.measured) is None:
                continue
            lines.append(
                f"{file.name}: {found.score.words}, same class for {found.equal_classes:.2%}, "
                f"largest difference of a logit {found.largest_difference.logits:.2g}"
            )
            if (line := self.open_question(file)) is not None:
                lines.append(f"  {line}")
        return lines

    def open_question(self, file: FileProof) -> str | None:
        """How much a file in 8-bit numbers may lose, where the images are too few to tell; None elsewhere."""
        found = file.measured
        if self.data is None or found is None or file.precision != "int8" or found.most_lost_points <= LOST_POINTS:
            return None
        images = self.data.images
        changed = images - round(found.equal_classes * images)
        return (
            f"{changed:,} of {images:,} answers changed. The loss of accuracy may be as large as "
            f"{found.most_lost_points:.1f} points; {images:,} images are too few to tell"
        )


def score_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    """Accuracy of logits [N, K] against labels [N]."""
    right = int((logits.argmax(axis=1) == labels).sum())
    low, high = wilson_ends(right, len(labels))
    return Score(accuracy=right / len(labels), interval=(low, high))


def prove(precision: str, reference: Outputs, found: Outputs, labels: NDArray[np.int64]) -> Measured:
    """Compare the outputs of a file with those of the trained network, of the same N images.

    Args:
        precision: fp32 or int8, which decides the bound.
        reference: logits [N, K], probabilities [N, K] and unlike scores [N] of the trained network.
        found: likewise, of the file.
        labels: [N].
    """
    differences = (float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(reference, found, strict=True))
    logits, probabilities, unlike = differences
    here, there = reference[0].argmax(axis=1), found[0].argmax(axis=1)
    highest = np.sort(reference[0], axis=1)[:, -2:]
    beyond = int(((here != there) & (highest[:, 1] - highest[:, 0] > MARGIN)).sum())
    lost = 100 * ((here == labels).astype(np.float64) - (there == labels))
    error = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else 0.0
    if precision == "fp32":
        passed = beyond == 0
    else:
        passed = not (lost.mean() > LOST_POINTS and lost.mean() > STANDARD_ERRORS * error)
    return Measured(
        largest_difference=Differences(logits=logits, probabilities=probabilities, unlike=unlike),
        equal_classes=float((here == there).mean()),
        unequal_beyond_margin=beyond,
        score=score_of(found[0], labels),
        lost_points=float(lost.mean()),
        standard_error_points=error,
        most_lost_points=max(float(lost.mean()) + STANDARD_ERRORS * error, 100 * 3 / len(labels)),
        passed=passed,
    )

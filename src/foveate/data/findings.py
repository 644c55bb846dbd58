"""What a check of a data set finds: a kind, how grave it is, and a line about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Severity = Literal["error", "warning", "info"]
"""`error`: a figure made with it would be wrong; `warning`: it may be; `info`: it is dealt with."""

_TITLES: Mapping[str, str] = {
    "unreadable": "Images that cannot be read",
    "unreadable_class": "Classes of which no image can be read",
    "untrainable": "Training would refuse this data",
    "faint": "Images that are nearly black",
    "alike_names": "Class names that look the same",
    "missing_names": "Classes whose name may mean that the label is missing",
    "measured_names": "Classes whose names are numbers, as of a measurement",
    "missing_class": "Classes without images",
    "too_few": "Classes with too few images to hold some out",
    "few_images": "Classes with few images",
    "imbalance": "Classes of very different sizes",
    "group_across": "Groups with images in several splits",
    "duplicate_conflict": "Copies with different labels",
    "duplicate_across": "Copies in different splits",
    "duplicate_within": "Copies in the same split",
    "near_duplicate_conflict": "Near copies with different labels",
    "near_duplicate_across": "Near copies in different splits",
    "near_duplicate_within": "Near copies in the same split",
    "wrong_extension": "File names of another format",
    "cropped": "Images that lose much to the crop",
    "enlarged": "Small images, enlarged",
    "enlarged_before": "Images that were enlarged before",
    "rotated": "Images turned by their EXIF data",
    "odd_mode": "Images of other colour modes",
    "deep": "Images of more than 8 bits",
    "passed_over": "Files that were left out, and how folders were read",
    "label_suspect": "Doubted labels",
}
"""By kind the words that a page shows for it."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found."""

    kind: str
    severity: Severity
    text: str
    """One line, with the fix where there is one."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Ids of images: those that belong together, such as copies; or one in each."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """By id what there is to say of an image, such as its label and its split; or by the name of a class."""

    @property
    def count(self) -> int:
        """Images."""
        return sum(map(len, self.groups))

    @property
    def title(self) -> str:
        """What the kind is called where people read it."""
        return _TITLES[self.kind]


def sort_by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """In the order in which a person should see to them."""
    order = get_args(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))

"""The page of an export: what was proved of its files, and what was not."""

from collections.abc import Mapping

from markupsafe import Markup

from foveate.exporting.proof import Certificate, FileProof, Score
from foveate.report.html import interval, percent
from foveate.report.sections import (
    Card,
    Column,
    Grid,
    Page,
    Section,
    Table,
    Text,
    code,
    numbers,
    settings_table,
    small,
)


def export_page(certificate: Certificate, reasons: Mapping[str, str]) -> Page:
    """The page of a certificate.

    Args:
        reasons: why a file failed, by its name.
    """
    data = certificate.data
    proved = f"{data.images:,} {data.split} images of {data.name}" if data else "unproved"
    exported = {name: getattr(certificate, name) for name in ("model", "weights", "classes", "size", "date")}
    images = data and {
        "data": data.name,
        "split": data.split,
        "images": data.images,
        "fingerprint": data.fingerprint,
        "8-bit ranges from": data.calibrated_on,
    }
    tables = [
        settings_table("What was exported", exported),
        settings_table("The images of the proof", images) if images else None,
        settings_table("Versions", certificate.versions),
    ]
    origin = Section("origin", "Origin", "Origin", [Grid([Card("", [table]) for table in tables if table])])
    subtitle = f"{proved}, {certificate.date}"
    return Page(f"Export of {certificate.model}", subtitle, [_proof(certificate, reasons), origin])


def _proof(certificate: Certificate, reasons: Mapping[str, str]) -> Section:
    undecided = {file.name: line for file in certificate.files if (line := certificate.open_question(file))}
    cards = [_file(file, reasons.get(file.name), undecided.get(file.name)) for file in certificate.files]
    if certificate.data is None or certificate.torch is None:
        unproved = Markup(
            "It was not measured whether this file gives the same answers as the trained network: it was "
            "exported with {}, and its metadata say so."
        ).format(code("--unproved"))
        return Section("proof", "Proof", "Unproved", cards, unproved)
    note = "Every image was given to the trained network in torch, and to each file under ONNX Runtime. "
    rows = [["Trained network (torch, 32 bits)", _accuracy(certificate.torch), "–", "–", "–"]]
    for file in certificate.files:
        if (found := file.measured) is not None:
            most = f"; may be {found.most_lost_points:.1f}" if file.precision == "int8" else ""
            error = f"standard error {found.standard_error_points:.2f}{most}"
            rows.append(
                [
                    small(file.name, f"{file.precision}, {file.bytes / 1000:,.0f} kB"),
                    _accuracy(found.score),
                    f"{100 * found.equal_classes:.2f} %",
                    f"{found.largest_difference.logits:.2g}",
                    small(f"{found.lost_points:.2f} points", error),
                ]
            )
    label = "The files beside the trained network"
    columns = [
        Column("Network"),
        *numbers("Accuracy", "Same class", "Largest difference of a logit", "Accuracy lost"),
    ]
    table = Table(label, columns, rows, f"{label}, on {certificate.data.images:,} images")
    title = "Proved" if certificate.passed else "Failed: no model was written"
    if certificate.passed and undecided:
        title = f"Proved; what {', '.join(undecided)} loses is not known well"
    return Section(
        "proof", "Proof", title, [Card("", [table]), *cards], f"{note}{certificate.data.trained_on.capitalize()}."
    )


def _accuracy(score: Score) -> Markup:
    return small(percent(score.accuracy), interval(score.interval))


def _file(file: FileProof, reason: str | None, undecided: str | None) -> Card:
    outcome, measured = "not measured", None
    if (found := file.measured) is not None:
        outcome = "within its bound" if found.passed else "beyond its bound"
        if found.passed and undecided:
            outcome = "not shown to be beyond its bound"
        measured = Text(
            f"{found.unequal_beyond_margin} images have another class although the two highest logits differ by "
            f"more than 1e-4. Largest difference of a probability: {found.largest_difference.probabilities:.2g}; "
            f"of an unlike score: {found.largest_difference.unlike:.2g}.",
            note=True,
        )
    told = [Text(Markup("<strong>{}</strong>").format(f"{undecided}."))] if undecided else []
    digest = Markup('sha256 <code class="break">{}</code>').format(file.sha256)
    texts = [Text(file.bound), Text(reason) if reason else None, *told, measured, Text(digest, note=True)]
    return Card(f"{file.name}: {outcome}", texts)

"""What an export proved, as plain data, to one HTML file that loads nothing."""

from collections.abc import Mapping
from typing import Any

from foveate.report.html import flat, render_template

__all__ = ["render_certificate"]


def render_certificate(certificate: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """The page of a certificate, as `certificate.json` holds it.

    Args:
        reasons: why a file failed, by its name.
    """
    data = certificate["data"]
    proved = f"{data['images']:,} {data['split']} images of {data['name']}" if data else "unproved"
    page = {"title": f"Export of {certificate['model']}", "subtitle": f"{proved}, {certificate['date']}"}
    return render_template(
        "export.html",
        {},
        page=page,
        certificate=certificate,
        reasons=reasons,
        versions=flat(certificate["versions"]),
    )

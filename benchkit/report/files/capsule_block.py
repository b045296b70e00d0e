"""The place of the capsule in a report: a download on screen, an attachment in the PDF, its digest in the text."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

from benchkit.report.context.blocks import DownloadBlock, ReportContext, Section

CAPSULE = "capsule.zip"
"""The capsule's file name, in HTML, among the PDF's attachments, and beside the report."""


def with_capsule(report: ReportContext, capsule: bytes) -> ReportContext:
    """Return the report with its capsule at the end of the section that says how to reproduce it.

    A common report of several studies has no such section: there it ends the last section before the chapters.
    """
    block = capsule_block(capsule)
    names = [part.name for part in report.sections]
    place = "reproduce" if "reproduce" in names else names[-1]
    sections = tuple(_ended(part, block) if part.name == place else part for part in report.sections)
    return replace(report, sections=sections)


def capsule_block(capsule: bytes) -> DownloadBlock:
    """Return the capsule as a block of a report."""
    size = len(capsule)
    return DownloadBlock(
        title="Capsule",
        text="What this report rests on, in one archive, the same in HTML and PDF: the resolved study, the commands, "
        "versions, devices, plugins, seeds, every trial's results, and digests. `benchkit verify` on this file checks "
        "the report against it; with --retrain N it trains N of the trials again.",
        file=CAPSULE,
        media_type="application/zip",
        content=base64.b64encode(capsule).decode(),
        size=f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB",
        digest=hashlib.sha256(capsule).hexdigest(),
    )


def _ended(part: Section, block: DownloadBlock) -> Section:
    return replace(part, blocks=(*part.blocks, block))

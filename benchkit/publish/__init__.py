"""Reports as a site: one folder of static pages for any web host, which opens from disk, too."""

from benchkit.publish.reports import PublishedReport, read_report
from benchkit.publish.site import Site, publish

__all__ = ["PublishedReport", "Site", "publish", "read_report"]

"""From results to pages: context, figures, tables, HTML and PDF."""

FORMATS = ("html", "pdf", "tables", "figures", "json")
"""What a report can be asked for."""

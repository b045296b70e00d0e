"""From results to pages: context, figures, tables, HTML and PDF."""

FORMATS = ("html", "pdf", "tables", "figures", "json")
"""What a report can be asked for; on the command line, `all` is every one of them."""

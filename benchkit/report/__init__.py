"""From results to pages: context, figures, tables, HTML and PDF."""

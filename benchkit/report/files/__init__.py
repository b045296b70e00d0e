"""Files of a report: HTML, PDF, exports beside them, and their templates."""

"""Tables: one model of columns and cells, the report's tables, and how they are printed."""

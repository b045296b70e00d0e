"""Trackers: a study's trials as runs of MLflow, TensorBoard and others, from the record, beside a sweep or later."""

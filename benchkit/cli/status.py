"""`benchkit status`: where every condition of a study stands."""

from __future__ import annotations

from dataclasses import replace

import typer

from benchkit.cli.app import line, print_json, print_note, print_table, print_text
from benchkit.cli.options import DEFAULT_WORKSPACE, AsJson, LatestStudy, MetricFiles, Storage, Workspace
from benchkit.storage import encode
from benchkit.study.study import study_name


def status(
    study: LatestStudy = "",
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: MetricFiles = [],
    as_json: AsJson = False,
) -> None:
    """Show the state of every condition of STUDY, failures with their reason, the time left, and what is
    still undecided.

    Exit code 1: files of trials were lost or changed.
    """
    from benchkit.analysis.wording import metric_words
    from benchkit.ledger import read_results
    from benchkit.ledger.cleaning import removed_words
    from benchkit.sweep.seat_lines import ended_names, recorded_epochs, seats_of
    from benchkit.sweep.status import status_of

    results = read_results(workspace, study_name(study) or None, storage or None, upcoming=True)
    found = status_of(results)
    epochs = recorded_epochs(results.trials)
    over = ended_names(results.trials)  # a sweep that was killed leaves its lines
    seats = [
        replace(seat, epoch=epochs.get(seat.trial, seat.epoch))
        for seat in seats_of(workspace, storage, found.study)
        if seat.trial not in over
    ]
    if as_json:
        print_json({**found.plain(), "seats": encode(seats)})
        raise typer.Exit(found.broken)
    states = [state for state in found.states if any(row.states.get(state) for row in found.rows)]
    rows = [
        (row.condition, row.kind, *(row.states.get(state, 0) for state in states), row.words(found.metric))
        for row in found.rows
    ]
    print_table(("condition", "kind", *states, metric_words(found.metric)), rows)
    for failure in found.failures:
        print_text(line(failure), "yellow")
    for running in found.running:
        print_text(running)
    for seat in seats:
        print_text(seat.words)
    for left in found.left_out:
        print_note(f"left out: {left}")
    if found.interim:
        print_text(found.interim.words)
    print_text(found.sentence)
    if cleaned := removed_words(results):
        print_note(cleaned)
    raise typer.Exit(found.broken)

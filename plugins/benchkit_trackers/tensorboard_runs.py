"""TensorBoard: a folder of events for each trial and condition, with its settings as hyperparameters."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from benchkit import BenchkitError, TrackedRun, card
from benchkit_trackers.extras import need

MARK = "benchkit.json"


@card(
    title="TensorBoard",
    summary="Event files in a folder, usually tensorboard in the workspace.",
    url="https://www.tensorflow.org/tensorboard",
)
class TensorboardRuns:
    """Runs below the folder that the address names. A run is written whole, and while it is trained goes on."""

    def __init__(self, folder: Path, address: str = "", /) -> None:
        """Look at no file yet; raise `BenchkitError` for an address that is no folder of this machine."""
        if "://" in address:
            raise BenchkitError("tensorboard: the address is no folder", hint="name a folder: tensorboard=FOLDER")
        self._folder = Path(address) if address else folder
        self.viewed_by = f"tensorboard --logdir {shlex.quote(str(self._folder))}"
        self._events, self._writers, self._data, self._metadata, self._values = need(
            "tensorboard",
            "tensorboard.compat.proto.event_pb2",
            "tensorboard.summary.writer.event_file_writer",
            "tensorboard.plugins.hparams.plugin_data_pb2",
            "tensorboard.plugins.hparams.metadata",
            "google.protobuf.struct_pb2",
        )
        self._open: dict[str, tuple[Any, int]] = {}

    def write(self, run: TrackedRun) -> None:
        """Write the folder of a run; where this process has begun it, the rest."""
        place = (
            self._folder / run.study / f"{re.sub(r'[^A-Za-z0-9_.=,+-]+', '-', run.name)[:80].strip('.')}-{run.id[:8]}"
        )
        mark = place / MARK
        if mark.is_file() and json.loads(mark.read_text(encoding="utf-8"))["written"] == run.mark:
            return
        writer, written = self._open.pop(run.id, (None, 0))
        if writer is None or run.kind == "condition":
            shutil.rmtree(place, ignore_errors=True)
            writer, written = self._writers.EventFileWriter(str(place)), 0
            self._add(writer, run.started, 0, [self._started(run)])
        for row in run.rows[written:]:
            self._add(writer, row.time, row.step, [_scalar(*pair) for pair in row.values.items()])
        if run.ended:
            last = run.rows[-1].step if run.rows else 0
            self._add(writer, run.finished, last, [_scalar(f"scores/{name}", v) for name, v in run.scores.items()])
            self._add(writer, run.finished, last, [self._ended(run)])
            writer.close()
            mark.write_text(json.dumps({"id": run.id, "written": run.mark, **run.tags}, indent=1), encoding="utf-8")
        else:
            writer.flush()
            self._open[run.id] = writer, len(run.rows)

    def close(self) -> None:
        """Close the files of runs that go on."""
        for writer, _ in self._open.values():
            writer.close()
        self._open.clear()

    def _add(self, writer: Any, time: float, step: int, values: list[dict[str, Any]]) -> None:
        if values:
            writer.add_event(self._events.Event(wall_time=time, step=step, summary={"value": values}))

    def _started(self, run: TrackedRun) -> dict[str, Any]:
        told = {**run.parameters, **run.tags, "kind": run.kind}
        information = self._data.SessionStartInfo(
            hparams={name: self._value(text) for name, text in told.items()},
            group_name=run.id,
            start_time_secs=run.started,
        )
        return self._hidden(self._metadata.SESSION_START_INFO_TAG, session_start_info=information)

    def _ended(self, run: TrackedRun) -> dict[str, Any]:
        status = "STATUS_SUCCESS" if run.state in ("done", "pruned") else "STATUS_FAILURE"
        information = self._data.SessionEndInfo(status=status, end_time_secs=run.finished)
        return self._hidden(self._metadata.SESSION_END_INFO_TAG, session_end_info=information)

    def _hidden(self, tag: str, **content: Any) -> dict[str, Any]:
        metadata = self._metadata.create_summary_metadata(self._data.HParamsPluginData(**content))
        return {"tag": tag, "metadata": metadata, "tensor": self._metadata.NULL_TENSOR}

    def _value(self, text: str) -> Any:
        """Return a setting's text as TensorBoard sorts it: as a number where it is one."""
        try:
            return self._values.Value(number_value=float(text))
        except ValueError:
            return self._values.Value(string_value=text)


def _scalar(name: str, value: float) -> dict[str, Any]:
    return {"tag": name, "simple_value": value}

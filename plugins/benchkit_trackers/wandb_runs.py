"""Weights & Biases: an offline folder for each trial and condition, which `wandb sync` sends."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from benchkit import BenchkitError, TrackedRun, card
from benchkit_trackers.extras import need

MARK = "benchkit.written"


@card(
    title="Weights & Biases",
    summary="Offline runs of ended trials in a folder, usually wandb in the workspace; wandb sync sends them.",
    url="https://wandb.ai",
)
class WandbRuns:
    """Offline runs in `wandb` below the folder that the address names; nothing is sent, or told of this machine."""

    live = False

    def __init__(self, folder: Path, address: str = "", /) -> None:
        """Look at no file yet; raise `BenchkitError` for an address that is no folder of this machine."""
        if "://" in address:
            raise BenchkitError(
                "wandb: the address is no folder", hint="name a folder: wandb=FOLDER; `wandb sync` sends what is there"
            )
        self._folder = Path(address) if address else folder.parent  # W&B makes a folder `wandb` in it
        self.viewed_by = f"wandb sync {shlex.quote(str(self._folder / 'wandb'))}/offline-run-*"
        os.environ.update(WANDB_SILENT="true", WANDB_MODE="offline", WANDB_ERROR_REPORTING="false")
        (self._wandb,) = need("wandb", "wandb")

    def write(self, run: TrackedRun) -> None:
        """Write a run that has ended; a folder that is not whole, or holds less, is replaced."""
        for folder in self._folder.glob(f"wandb/offline-run-*-{run.id}"):
            if (folder / MARK).is_file() and (folder / MARK).read_text(encoding="utf-8") == run.mark:
                return
            shutil.rmtree(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        offline = self._wandb.init(
            mode="offline",
            project=run.study,
            id=run.id,
            name=run.name,
            group=run.tags.get("condition"),
            job_type=run.kind,
            dir=str(self._folder),
            config={**run.parameters, **{f"benchkit.{name}": text for name, text in run.tags.items()}},
            reinit="return_previous",
            settings=self._quiet(),
        )
        for row in run.rows:
            offline.log({**row.values, "_timestamp": row.time}, step=row.step)
        offline.summary.update({**run.scores, "state": run.state})
        place = Path(offline.dir).parent
        offline.finish(exit_code=0 if run.state in ("done", "pruned") else 1)
        (place / MARK).write_text(run.mark, encoding="utf-8")

    def close(self) -> None:
        """End W&B's own process."""
        self._wandb.teardown()

    def _quiet(self) -> Any:
        return self._wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            host="benchkit",
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )

"""How long it takes until a study's ranking is decided by the report's rule, for each way of deciding.

    python tests/peers/bench_answer.py [--only digits] [--ways eager,compiled] [--repeats 40] [--hours 0.2] [--jobs 2]
                                       [--folder build/answer] [--studies 2000] [--out reports] [--draw]

Real repeats of every condition are trained by `benchkit sweep` once, 40 on digits and 10 on a tenth of CIFAR-10,
eagerly and with compiled steps, and kept with their seconds in the folder. The same command goes on where it was, so
that with --hours they can be gathered in pieces; --draw gathers nothing. Then 2,000 studies are drawn from them without
replacement for each way of deciding: so many repeats of each condition, three that were reported and then continued,
repeats added until decided, and those with pruning (which benchkit gives searches alone: here one sees what repeats
would make of it). Told are the time until a study is decided (median, 10 and 90 % quantile), the share decided, and the
share decided for a condition that is worse by more than 0.3 points in the pool. Seconds are those of the machine that
gathered: let it be a quiet one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from answer_pools import QUESTIONS, WAYS, Pool, gather, known_pools
from answers import STUDIES, answers_of
from bench import machine
from benchmark_images import source
from kept import keep, known_parts
from measurements import Part

from benchkit.preparation import data_root


def pool_words(pool: Pool) -> str:
    """Return a sentence on what a pool holds and where it was gathered."""
    means = dict(zip(pool.conditions, pool.table("accuracy").astype(float).mean(0), strict=True))
    scores = ", ".join(f"{name} {100 * mean:.2f} %" for name, mean in means.items())
    load = (
        f"load {min(pool.loads):.1f} to {max(pool.loads):.1f} on {pool.cores} cores" if pool.loads else "load unknown"
    )
    skipped = f"; {pool.skipped} left out, in which a condition failed" if pool.skipped else ""
    return (
        f"{pool.question}, {pool.way}: {pool.size} repeats of each ({scores}){skipped}; {pool.jobs} trials at a time, "
        f"{pool.machine}, PyTorch {pool.torch}, {pool.dated}, {load}"
    )


def written(folder: Path, out: Path, studies: int, command: str) -> Sequence[Path]:
    """Draw studies from the pools of a folder, print what they tell, and renew the benchmark's report with it."""
    pools = [pool for pool in known_pools(folder) if pool.size > 2]
    answers = [answer for pool in pools for answer in answers_of(pool, studies)]
    for answer in answers:
        print(answer.text(), flush=True)
    known = known_parts(out)
    part = known.get("cpu") or Part(
        **machine("cpu"), dated=date.today().isoformat(), commands={}, threads=1, quick=False, load=os.getloadavg()[0],
        images=source(data_root()), skipped=(),
    )  # fmt: skip
    part = part.with_piece("answers", command, answers=tuple(answers), pools=tuple(map(pool_words, pools)))
    parts = {**known, "cpu": replace(part, dated=max(part.dated, *(pool.dated for pool in pools)))}
    keep(out, parts)
    from pages import write

    return write(out, parts)


def main() -> None:
    """Gather what is missing, as far as the time goes, and tell what the pools say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=QUESTIONS, help="one of the studies alone")
    parser.add_argument("--ways", default=",".join(WAYS), help="how steps are taken, parted by commas")
    parser.add_argument("--repeats", type=int, default=0, help="of each condition; 0: as many as the study asks for")
    parser.add_argument("--hours", type=float, default=0.0, help="the most that each sweep takes; 0: to its end")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trials at a time, each with one thread")
    parser.add_argument("--folder", type=Path, default=Path("build/answer"))
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("reports"))
    parser.add_argument("--draw", action="store_true", help="gather nothing")
    given = parser.parse_args()
    ways = given.ways.split(",")
    if unknown := [way for way in ways if way not in WAYS]:
        parser.error(f"argument --ways: got {', '.join(unknown)}; expected some of {', '.join(WAYS)}")
    for question in QUESTIONS.values():
        for way in [] if given.draw or given.only not in (None, question.name) else ways:
            options = ["--hours", str(given.hours)] if given.hours else []
            pool = gather(given.folder, question, way, given.repeats or question.repeats, given.jobs, options)
            print(pool_words(pool) if pool.size else f"{question.name}, {way}: nothing yet", flush=True)
    if not any(pool.size > 2 for pool in known_pools(given.folder)):
        parser.error(f"argument --folder: {given.folder} holds no pool with three repeats of each condition yet")
    options = "" if given.studies == STUDIES else f" --studies {given.studies}"
    paths = written(given.folder, given.out, given.studies, f"python tests/peers/bench_answer.py{options}")
    print(f"written: {', '.join(map(str, paths))}")


if __name__ == "__main__":
    main()

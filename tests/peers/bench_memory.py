"""Image sets larger than memory: run it, it prints what training and preparing them hold, and how fast they are.

    python tests/peers/bench_memory.py training [--size 30GB] [--first 2GB] [--steps 2000] [--memory 6GB]
    python tests/peers/bench_memory.py decoding [--photographs 100000] [--drawn 2000] [--memory 6GB]

`training` prepares a set of images as any data set does (`benchkit.preparation`), each image a pattern of its own
number, and trains a small network on images drawn at random over all of it, in turns with the same network on the first
--first alone, which memory holds. A regularizer looks at every image that a step gets: whether it is the pattern of one
number, and its label that number's. `decoding` draws photographs as JPEG files and imports them as an image folder.

All is done in a control group of --memory, page cache included; where none can be made, the file leaves the page cache
before each turn, and the first lines say so. `peak` is the most that was in memory at once, in MiB: `own` what the
process holds itself (anonymous memory), `mapped` its mapped pages of the files, which the kernel takes back at need.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_stream import small_net
from benchkit_datasets.image_folder import image_folder
from PIL import Image

from benchkit import Batch, Split, Splits
from benchkit.cli.options import parse_size
from benchkit.data.mapped import let_go
from benchkit.preparation import About, Draft, listening, prepare
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import DataSettings, ModelSettings, PluginRef, Settings, TrainSettings
from benchkit.sweep.devices import CGROUPS, OWN_GROUPS, available_cores, control_groups
from benchkit.train.fit import Pause, fit_in_turns
from benchkit.train.placement import shown_bytes
from benchkit.train.run import Plugins, Run, build_run

CLASSES = 10
SPARE, ENOUGH = 4 * 10**9, 40 * 10**9
"""Bytes of the disk that are left to others, and free ones from which on nothing is said."""
NUMBERED, STRIDE = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
"""Odd factors modulo 2**64: of an image's number, and of the place within the image."""
FEW = 64
"""Validation and test images: hardly any, because training is what is measured."""
LOOK = 0.02
"""Seconds between two looks at the process's memory."""


def signed(number: int) -> int:
    """Return a number modulo 2**64 as int64 holds it."""
    return (number + 2**63) % 2**64 - 2**63


def pattern(numbers: np.ndarray, side: int) -> np.ndarray:
    """Return the images of some numbers int64 (N,) as uint8 (N, side, side, 3): eight bytes tell the number."""
    with np.errstate(over="ignore"):
        first = numbers.astype(np.uint64) * np.uint64(NUMBERED)
        places = np.arange(side * side * 3 // 8, dtype=np.uint64) * np.uint64(STRIDE)
        return (first[:, None] + places).view(np.uint8).reshape(len(numbers), side, side, 3)


@dataclass(frozen=True, eq=False)
class Checked:
    """A regularizer that changes nothing and counts the images whose pattern, number and label do not belong together.

    `seen` int64 (N,) is how often each of the set's first N images was shown.
    """

    seen: torch.Tensor
    wrong: list[str] = field(default_factory=list)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Look at the images of a step."""
        pixels = (batch.images * 255).round_().to(torch.uint8).permute(0, 2, 3, 1)
        words = pixels.reshape(len(pixels), -1).view(torch.int64)
        places = torch.arange(words.shape[1], dtype=torch.int64) * signed(STRIDE)
        numbers = words[:, 0] * signed(pow(NUMBERED, -1, 2**64))
        whole = (words == words[:, :1] + places).all(1)
        fits = whole & (numbers >= 0) & (numbers < len(self.seen)) & (numbers % CLASSES == batch.targets.argmax(1))
        self.wrong.extend(f"number {number}" for number in numbers[~fits].tolist())
        self.seen.index_add_(0, numbers[fits], torch.ones_like(numbers[fits]))
        return batch


def prepared(root: Path, size: int, side: int) -> Splits:
    """Return a set of so many bytes, prepared: its training images are the patterns of the numbers from 0 on."""
    count = size // (side * side * 3)

    def build(draft: Draft) -> About:
        for split, number in (("train", count), ("val", FEW), ("test", FEW)):
            beginning = {"train": 0, "val": count, "test": count + FEW}[split]
            images = draft.allocate(split, np.arange(number) % CLASSES, (side, side, 3))
            step = max(1, 2**26 // images[0].nbytes)
            for start in range(0, number, step):
                end = min(number, start + step)
                images[start:end] = pattern(np.arange(beginning + start, beginning + end), side)
                let_go(images[start:end])
        names = tuple(str(label) for label in range(CLASSES))
        return About(class_names=names, licence="", citation="")

    return prepare(root, "patterns", build)


@dataclass(slots=True)
class Watched:
    """The most that was in memory while it was watched, in MiB: all of it, the process's own, and mapped files."""

    most: int = 0
    own: int = 0
    mapped: int = 0

    def text(self) -> str:
        return f"peak {self.most:,} MiB (own {self.own:,}, mapped {self.mapped:,})"


@contextmanager
def watched() -> Iterator[Watched]:
    """Watch this process's memory until the block ends."""
    found, ended = Watched(), threading.Event()

    def look() -> None:
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines() if "kB" in line)
        told = {words[0]: int(words[1]) // 1024 for words in lines}
        found.own = max(found.own, told["RssAnon:"] + told["RssShmem:"])
        found.mapped = max(found.mapped, told["RssFile:"])
        found.most = max(found.most, told["VmHWM:"])

    def watch() -> None:
        while not ended.wait(LOOK):
            look()

    Path("/proc/self/clear_refs").write_text("5")  # the peak that the kernel keeps begins anew
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        look()


@contextmanager
def limited(room: int) -> Iterator[bool]:
    """Put this process into a control group of `room` bytes while the block runs; False where none is made."""
    before, group = next(control_groups(("", "memory"), CGROUPS, OWN_GROUPS), ("", CGROUPS))[1], None
    try:
        group = before / f"bench-memory-{os.getpid()}"
        group.mkdir()
        file = next(group / name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists())
        file.write_text(str(room))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except (OSError, StopIteration) as error:
        print(f"no control group of {shown_bytes(room)} can be made ({error}): the page cache is emptied instead")
        yield False
        return
    try:
        yield True
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def run_of(splits: Splits, checked: Checked, options: argparse.Namespace) -> Run:
    settings = Settings(
        data=DataSettings(dataset=PluginRef(name="patterns"), normalize=False),
        model=ModelSettings(model=PluginRef(name="small")),
        train=TrainSettings(
            epochs=10**6, batch_size=options.batch_size, select="last", threads=options.threads, compile="never"
        ),
    )
    plugins = Plugins(model=small_net, norm=torch.nn.BatchNorm2d, regularizers=(("checked", checked),))
    return build_run(settings, splits, plugins, seeds=trial_seeds(settings.seed, "bench", 0), device="cpu")


def first_of(splits: Splits, count: int) -> Splits:
    train = Split(images=splits.train.images[:count], labels=splits.train.labels[:count])
    return Splits(
        train=train, val=splits.val, test=splits.test, class_names=splits.class_names, licence="", citation="",
        fingerprint="first",
    )  # fmt: skip


def from_disk() -> int:
    """Return the bytes that this process has had read from disks."""
    return int(Path("/proc/self/io").read_text().split("read_bytes:")[1].split()[0])


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of some steps by the clock and of the process's computing, and the bytes that were read from disks."""

    clock: float
    computed: float
    read: int


def turn(steps: Iterator[Any], count: int) -> Turn:
    """Take so many steps."""
    began, computed, read = time.perf_counter(), time.process_time(), from_disk()
    taken = 0
    while taken < count:
        taken += next(steps) is Pause.STEP
    return Turn(time.perf_counter() - began, time.process_time() - computed, from_disk() - read)


def emptied(root: Path) -> None:
    """Take the prepared files out of the page cache."""
    for file in root.rglob("*.npy"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def train(root: Path, size: int, group: bool, options: argparse.Namespace) -> dict[str, Any]:
    began = time.perf_counter()
    with watched() as preparing:
        splits = prepared(root, size, options.side)
    print(f"prepared in {time.perf_counter() - began:.0f} s, {preparing.text()}", flush=True)
    images = splits.train.images
    few = parse_size("--first", options.first) // images[0].nbytes
    if few >= len(images):
        sys.exit(f"{shown_bytes(images.nbytes)} of images are no more than --first {options.first}")
    checks = {
        name: Checked(torch.zeros(count, dtype=torch.int64)) for name, count in (("first", few), ("whole", len(images)))
    }
    runs = {"first": run_of(first_of(splits, few), checks["first"], options)}
    runs["whole"] = run_of(splits, checks["whole"], options)
    steps = {name: fit_in_turns(run) for name, run in runs.items()}
    turns: dict[str, list[Turn]] = {name: [] for name in steps}
    with watched() as training:
        for part in range(options.steps // options.turn + 1):  # the first turns warm up and are left out
            for name, going in steps.items():
                if not group:
                    emptied(root)
                if name == "first":
                    for start in range(0, few, 4096):  # memory holds these: what was read is not measured
                        int(images[start : min(few, start + 4096), ::16].max())
                    let_go(images)
                taken = turn(going, options.turn)
                turns[name] += [taken] * (part > 0)
    return {
        "images": len(images),
        "image_bytes": images[0].nbytes,
        "turns": {name: [asdict(one) for one in each] for name, each in turns.items()},
        "shown": {name: int(check.seen.sum()) for name, check in checks.items()},
        "different": {name: int((check.seen > 0).sum()) for name, check in checks.items()},
        "wrong": {name: len(check.wrong) for name, check in checks.items()},
        "peak": asdict(training),
        "preparing": asdict(preparing),
    }


def training(options: argparse.Namespace) -> dict[str, Any]:
    asked = parse_size("--size", options.size)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        free = shutil.disk_usage(name).free
        size = min(asked, free - SPARE)
        if free < ENOUGH or size < asked:
            print(f"the disk has {shown_bytes(free)} free: of {options.size} of images {shown_bytes(size)} are written")
        with limited(parse_size("--memory", options.memory)) as group:
            found = train(Path(name), size, group, options)
    rates = {
        name: [options.turn * options.batch_size / one["clock"] for one in each]
        for name, each in found["turns"].items()
    }
    found["beside"] = statistics.median(
        whole / first for whole, first in zip(rates["whole"], rates["first"], strict=True)
    )
    for name, each in rates.items():
        steps, turns = options.turn * len(each), found["turns"][name]
        print(
            f"{name:6} {statistics.median(each):10,.0f} images/s [{min(each):,.0f}..{max(each):,.0f}], "
            f"{1000 * sum(one['computed'] for one in turns) / steps:.1f} ms of processor time a step, "
            f"{shown_bytes(sum(one['read'] for one in turns))} from the disk for "
            f"{shown_bytes(steps * options.batch_size * found['image_bytes'])} of images; in all "
            f"{found['shown'][name]:,} shown, {found['different'][name]:,} different ones, {found['wrong'][name]} wrong"
        )
    print(f"whole beside first: x{found['beside']:.3f} (median of {len(each)} turns of {options.turn} steps each)")
    print(Watched(**found["peak"]).text())
    if any(found["wrong"].values()):
        sys.exit("images were shown that are not the pattern of their number, or not with its label")
    return found


def photograph(number: int) -> bytes:
    """Return a photograph of 500 x 375 pixels or upright, made up: broad shapes under some noise, as JPEG."""
    random = np.random.default_rng(number)
    size = (500, 375) if number % 4 else (375, 500)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    broad = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = (broad + random.normal(0, 9, broad.shape).astype(np.int16)).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=88)
    return out.getvalue()


def photographs(folder: Path, drawn: int, count: int) -> int:
    """Write class folders with `count` photographs, of which `drawn` differ, and return the bytes of these."""
    for label in range(CLASSES):
        (folder / f"class-{label}").mkdir(parents=True)
    first = []
    for number in range(count):
        place = folder / f"class-{number % CLASSES}" / f"{number}.jpg"
        if number < drawn:
            place.write_bytes(photograph(number))
            first.append(place)
        else:
            os.link(first[number % drawn], place)
    return sum(file.stat().st_size for file in first)


def decoding(options: argparse.Namespace) -> dict[str, Any]:
    marks: dict[str, list[tuple[float, float]]] = {}

    def note(done: int, total: int, what: str) -> None:
        marks.setdefault(what, []).append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        size = photographs(folder / "photographs", min(options.drawn, options.photographs), options.photographs)
        print(f"{options.photographs:,} photographs, {options.drawn:,} of them different ({shown_bytes(size)})")
        with limited(parse_size("--memory", options.memory)), watched() as held, listening(note):
            began = time.perf_counter()
            splits = image_folder(
                folder / "sets", source=folder / "photographs", size=options.side, allow_duplicates=True
            )
            seconds = time.perf_counter() - began
        written = splits.train.images.nbytes + splits.test.images.nbytes
    each = [np.subtract(told[-1], told[0]) for what, told in marks.items() if what.startswith("decoding")]
    clock, computed = (sum(part) for part in zip(*each, strict=True))
    print(
        f"decoded to {shown_bytes(written)} in {clock:.0f} s by the clock and {computed:.0f} s of processor time, "
        f"{computed / clock:.2f} of {available_cores()} cores: {options.photographs / clock:,.0f} photographs/s, "
        f"{1000 * computed / options.photographs:.1f} ms of processor time each; prepared after {seconds:.0f} s"
    )
    print(held.text())
    return {"clock": clock, "computed": computed, "seconds": seconds, "bytes": written, "peak": asdict(held)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    train_part = parts.add_parser("training")
    train_part.set_defaults(measure=training)
    train_part.add_argument("--size", default="30GB")
    train_part.add_argument("--first", default="2GB")
    train_part.add_argument("--steps", type=int, default=2000)
    train_part.add_argument("--turn", type=int, default=100, help="steps between two changes")
    train_part.add_argument("--batch-size", type=int, default=128)
    train_part.add_argument("--side", type=int, default=224)
    train_part.add_argument("--threads", type=int, default=1)
    decode_part = parts.add_parser("decoding")
    decode_part.set_defaults(measure=decoding)
    decode_part.add_argument("--photographs", type=int, default=100_000)
    decode_part.add_argument("--drawn", type=int, default=2000)
    decode_part.add_argument("--side", type=int, default=224)
    for part in (train_part, decode_part):
        part.add_argument("--memory", default="6GB")
        part.add_argument("--folder", type=Path, default=None, help="where all is written; default: the system's")
        part.add_argument("--json", type=Path, default=None, metavar="FILE")
    options = parser.parse_args()
    found = options.measure(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""benchkit beside what people write or take, on this machine, as one report: `make bench`.

    python tests/peers/bench.py [--rounds 3] [--epochs 3] [--only resnet14] [--device cpu] [--out reports] [--quick]
                                [--timm-script pytorch-image-models/train.py]

Every contender trains the same model on the same images in a process of its own (CIFAR-10's and MNIST's where both
have been prepared, else random ones); contenders take turns in each round, so that a busy machine slows all of them.
Told are medians over rounds with the least and the greatest, ratios to the script within each round, and the seconds
until the first step apart. benchkit is run by its public command, its ledger, evaluation and checkpoints included. Then
come what benchkit adds to a trial of a minute, the norms one by one, and what a sweep of 2,000 trials grows by. The
same command measures on a GPU with --device cuda; the report keeps what it holds of the other device, and with --only
of the other workloads, and what has been measured is on disk after each of them (benchmarks.json), should a later one
be broken off. timm's own train script is in its repository but not in its package: it takes part where --timm-script
names a copy.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from bench_growth import Growth
from bench_norms import NormRow
from benchmark_images import source
from devices import device
from kept import keep, known_parts
from measurements import Part
from rounds import Setting, contenders, measure, own_costs, peers, told
from workloads import workloads_on

from benchkit.preparation import data_root
from benchkit.storage import decode
from benchkit.sweep.devices import preloaded_allocator

HERE = Path(__file__).parent
PIECES = ("own-cost", "norms", "growth")
"""What is measured beside the workloads."""


def norms(setting: Setting) -> tuple[NormRow, ...]:
    """Return the norms beside the framework's layers, measured in a process of its own."""
    options = ["--threads", str(setting.threads), "--rounds", "1" if setting.quick else "15"]
    return tuple(decode(NormRow, one) for one in _told("bench_norms.py", setting, *options))


def growth(setting: Setting) -> tuple[Growth, ...]:
    """Return what a sweep of 2,000 tiny trials costs and holds at its start and at its end."""
    options = ["--trials", "12" if setting.quick else "2000"]
    return tuple(decode(Growth, one) for one in _told("bench_growth.py", setting, *options))


def _told(script: str, setting: Setting, *options: str) -> list[Any]:
    """Return the list that another benchmark prints."""
    found: list[Any] = told([sys.executable, str(HERE / script), "--json", "--device", setting.device, *options])
    return found


def measured(setting: Setting, only: str, wanted: Sequence[str]) -> Iterator[Part]:
    """Measure everything on one device; yield what is known after each piece of it, and print that piece."""
    names, skipped = contenders(setting.timm_script)
    names = [name for name in names if not wanted or name in wanted]
    said = spoken(sys.argv[1:])
    part = Part(
        **machine(setting.device),
        dated=date.today().isoformat(),
        commands={},
        threads=setting.threads,
        quick=setting.quick,
        load=os.getloadavg()[0],
        images=source(data_root()),
        peers=tuple(peers(names, setting.timm_script)),
        skipped=tuple(skipped),
    )
    for workload in workloads_on(setting.device, quick=setting.quick):
        if only in workload.name:
            compared = (*part.comparisons, measure(workload, names, setting))
            part = part.with_piece(workload.name, said, comparisons=compared)
            print(part.comparisons[-1].text(), flush=True)
            yield part
    if only in ("", "norms"):
        part = part.with_piece("norms", said, norms=norms(setting))
        yield part
    if only in ("", "growth"):
        part = part.with_piece("growth", said, growth=growth(setting))
        for one in part.growth:
            print(f"{one.name}: {one.first:.0f} {one.unit} at first, {one.last:.0f} at last", flush=True)
        yield part
    if only in ("", "own-cost"):
        part = part.with_piece("own-cost", said, own=own_costs(setting))
        for cost in part.own:
            print(f"a trial of {cost.seconds:.1f} s: {cost.share:.2%} is bookkeeping and live view", flush=True)
        yield part


def spoken(arguments: Sequence[str]) -> str:
    """Return the command as others can give it: without the folders of this machine."""
    place = arguments.index("--out") if "--out" in arguments else len(arguments)
    kept = [*arguments[:place], *arguments[place + 2 :]]
    if "--timm-script" in kept:
        kept[kept.index("--timm-script") + 1] = "train.py"
    return " ".join(["python tests/peers/bench.py", *kept])


def machine(device: str) -> Mapping[str, Any]:
    """Return what the numbers are measured on, by `Part`'s names."""
    import torch

    from benchkit.train.processor import processor

    on_cuda = device.startswith("cuda")
    return {
        "device": "cuda" if on_cuda else "cpu",
        "name": torch.cuda.get_device_name(device) if on_cuda else processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "allocator": library.name if (library := preloaded_allocator()) else "the C library's",
    }


def unknown_choice(only: str, wanted: Sequence[str], setting: Setting) -> str:
    """Return what is wrong with `--only` or `--contenders`, and what they may be; empty where both fit something."""
    workloads = [workload.name for workload in workloads_on(setting.device, quick=setting.quick)]
    if not any(only in workload for workload in workloads) and only not in PIECES:
        names = ", ".join([*workloads, *PIECES])
        return f"argument --only: {only} is in no name of a piece; expected (part of) one of {names}"
    known = contenders(setting.timm_script)[0]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        return f"argument --contenders: {', '.join(unknown)} cannot run here; expected some of {', '.join(known)}"
    return ""


def _file(name: str) -> Path:
    if not (path := Path(name)).is_file():
        raise argparse.ArgumentTypeError(f"{name} is no file")
    return path.resolve()


def _folder(name: str) -> Path:
    if (path := Path(name)).exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{name} is no folder")
    return path


def main() -> None:
    """Measure, print a table as it grows, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--only", default="", help="workloads with this in their name, or own-cost, norms or growth")
    parser.add_argument("--contenders", default="", help="these alone, parted by commas")
    parser.add_argument("--timm-script", type=_file, help="train.py of timm's repository, to take part")
    parser.add_argument("--out", type=_folder, default=Path("reports"))
    parser.add_argument("--quick", action="store_true", help="tiny workloads, one round: shows that it runs")
    given = parser.parse_args()
    setting = Setting(
        rounds=1 if given.quick else given.rounds,
        epochs=2 if given.quick else given.epochs,
        threads=given.threads,
        workers=given.workers,
        device=given.device,
        quick=given.quick,
        timm_script=given.timm_script,
    )
    wanted = [name for name in given.contenders.split(",") if name]
    if wrong := unknown_choice(given.only, wanted, setting):
        parser.error(wrong)
    known = known_parts(given.out)
    parts = dict(known)
    for part in measured(setting, given.only, wanted):
        parts[part.device] = part.after(known.get(part.device))
        keep(given.out, parts)
    from pages import write

    print(f"written: {', '.join(str(path) for path in write(given.out, parts))}")


if __name__ == "__main__":
    main()

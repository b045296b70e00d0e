"""Whether this tree trains to the same bits as an older commit: `make same-bits OLD=<commit>`.

    python tests/peers/same_bits.py COMMIT [--only NAME]

Ten small studies are swept by the commit and by this tree, one right after the other, on the CPU, one trial at a time,
with precision, threads and compilation written out. Compared are the trials' keys, states, every number of every epoch
but times and memory, all metrics, the selected epoch, predictions and weights. Exit status 1: something differs,
and what is named. The commit is built into a wheel and put before this tree on the import path, over the same packages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
CHANGING = {"seconds", "images_per_second", "peak_memory", "energy", "device", "node"}
"""What two equal trainings need not have in common."""

BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
METRIC = "metric "
"""How the names of facts that are metrics begin."""

KEY = re.compile(r"[0-9a-f]{12,}$")
SIZES = "train_size = 120\nval_size = 60\ntest_size = 60\n"
PLAIN = 'precision = "float32"\nthreads = 1\ncompile = "never"\nepochs = 3\nbatch_size = 30\n'
RESNET = 'name = "resnet"\nn = 1\nwidth = 8\n'


def study(model: str, train: str = "", rest: str = "", *, always: str = PLAIN, data: str = "", repeats: int = 2) -> str:
    """Return a study file on the digits; nothing that is decided by the machine is left open."""
    return (
        f'title = "Bits"\nseed = 11\n[data]\nname = "digits"\n{SIZES}{data}\n[model]\n{model}\n'
        f"[train]\n{always}{train}\n{rest}\n[repeats]\nn = {repeats}\n"
    )


def regularized(*tables: str) -> str:
    """Return the tables of regularizers."""
    return "".join(f"[[regularizers]]\n{table}\n" for table in tables)


STUDIES = {
    "perceptron": study(
        'name = "mlp"\nhidden = [16]\nnorm = "none"',
        'optimizer = { name = "sgd", lr = 0.1, nesterov = true }',
        regularized('name = "l1"\nstrength = 1e-4', 'name = "dropout"\nrate = 0.2')
        + '[factors]\n"train.optimizer.lr" = [0.1, 0.3]\n',
    ),
    "norms": study(
        RESNET,
        'optimizer = { name = "sgd", lr = 0.1 }\nschedule = { name = "one-cycle", max_lr = 0.2 }',
        regularized('name = "weight-decay"\nstrength = 5e-4', 'name = "grad-clip"\nmax_norm = 1.0')
        + '[factors]\n"model.norm" = ["bn", "gn", "ln", "in", "bin", "torch-bn", "none"]\n',
        repeats=1,
    ),
    "batches-mixed": study(
        RESNET,
        'optimizer = { name = "adamw", lr = 0.01 }\nschedule = "cosine"',
        '[factors]\n"regularizers" = [\n'
        '{ label = "mixup", value = [{ name = "mixup" }, { name = "label-smoothing" }] },\n'
        '{ label = "cutmix", value = [{ name = "cutmix" }, { name = "erasing" }] },\n]\n',
    ),
    "images-changed": study(
        RESNET,
        'optimizer = { name = "sgd", lr = 0.1 }',
        '[factors]\n"regularizers" = [\n'
        '{ label = "crop", value = [{ name = "crop-flip" }] },\n'
        '{ label = "resized", value = [{ name = "resized-crop" }] },\n'
        '{ label = "rand", value = [{ name = "rand-augment" }] },\n'
        '{ label = "auto", value = [{ name = "auto-augment" }] },\n]\n',
        repeats=1,
    ),
    "bf16": study(
        RESNET + 'norm = "bn"\n',
        'optimizer = { name = "sgd", lr = 0.1 }\nschedule = { name = "step", every = 1, gamma = 0.5 }\nselect = "last"',
        always=PLAIN.replace("float32", "bf16"),
    ),
    "two-threads": study(
        'name = "basenet"\nnorm = "bn"',
        'optimizer = { name = "adam", lr = 0.003, betas = [0.8, 0.99] }',
        always=PLAIN.replace("threads = 1", "threads = 2"),
        repeats=1,
    ),
    "compiled": study(
        'name = "mlp"\nhidden = [16]\nnorm = "none"',
        'optimizer = { name = "sgd", lr = 0.1 }',
        always=PLAIN.replace("never", "always"),
        repeats=1,
    ),
    "stopped-early": study(
        'name = "net3"\nnorm = "gn"',
        'optimizer = { name = "sgd", lr = 0.05 }\nselect_by = "val.accuracy"\nchannels_last = false',
        regularized('name = "early-stopping"\npatience = 1\nmetric = "val.loss"'),
        data="image_size = 16\nnormalize = false\n",
        repeats=1,
    ),
    "timm": study(
        'name = "timm:test_resnet"\nnorm = "bn"',
        'optimizer = { name = "sgd", lr = 0.05 }',
        regularized('name = "stochastic-depth"\nrate = 0.2'),
        data="image_size = 32\n",
        repeats=1,
    ),
    "searched": study(
        'name = "mlp"\nhidden = [16]\nnorm = "ln"',
        'optimizer = { name = "sgd", lr = 0.1 }',
        '[search]\ntrials = 6\nsampler = "tpe"\npruner = "median"\n'
        'space."train.optimizer.lr" = { low = 0.01, high = 1.0, log = true }\n',
    ),
}


def installed(commit: str, folder: Path) -> Path:
    """Return a folder to put on the import path that holds the commit as it is when it is installed."""
    source, built = folder / "source", folder / "built"
    source.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "--extract", "--directory", source], input=archive, check=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, folder], cwd=source, check=True, stdout=subprocess.PIPE, text=True
    )
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(built)
    return built


def swept(name: str, text: str, folder: Path, path: Path | None) -> dict[str, dict[str, Any]]:
    """Sweep a study by the benchkit on the import path and return the facts of each trial."""
    folder.mkdir()
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BENCHKIT_", "PYTHONPATH"))}
    kept |= {"BENCHKIT_DATA": str(folder.parent / "data"), **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, "-m", "benchkit", "sweep", f"{name}.toml", "--jobs", "1", "--device", "cpu"]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}, {path or 'this tree'}: {done.stdout}{done.stderr}")
    trials = folder / "benchkit-runs" / "trials"
    return dict(sorted(facts(file.parent, trials) for file in trials.rglob("result.json")))


def facts(folder: Path, trials: Path) -> tuple[str, dict[str, Any]]:
    """Return a trial's condition key and number, and what must be the same in an equal training."""
    key = next(found[0] for part in folder.relative_to(trials).parts if (found := KEY.search(part)))
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    told = {name: result[name] for name in ("state", "reason", "selected_epoch")}
    for split, scores in result["metrics"].items():
        measured = {**{name: value for name, value in scores.items() if name != "more"}, **scores.get("more", {})}
        told |= {f"{METRIC}{name} of {split}": value for name, value in measured.items()}
    for number, line in enumerate((folder / "history.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        record = json.loads(line)
        told |= {f"epoch {number}: {name}": value for name, value in record.items() if name not in CHANGING}
    for file in folder.glob("*.safetensors"):
        told[file.name] = digest(file)
    return f"{key}/{folder.name}", told


def digest(file: Path) -> str:
    """Return the sha256 of the tensors of a file, with their names, types and shapes."""
    from safetensors.torch import load_file

    found = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(bytes(tensor.contiguous().flatten().untyped_storage()))
    return found.hexdigest()


def differences(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each fact of a trial that is not the same; NaN is the same as NaN.

    Metrics that the older commit did not measure are left out.
    """
    lines = [f"{trial} is in one of them alone" for trial in sorted(old.keys() ^ new.keys())]
    for trial in sorted(old.keys() & new.keys()):
        added = {name for name in new[trial].keys() - old[trial].keys() if name.startswith(METRIC)}
        for name in sorted({**old[trial], **new[trial]}.keys() - added):
            before, now = (json.dumps(told[trial].get(name)) for told in (old, new))
            if before != now:
                lines.append(f"{trial} {name}: {before[:60]} is now {now[:60]}")
    return lines


def main() -> None:
    """Sweep each study twice, print what differs, and tell it by the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--only", default="", choices=STUDIES)
    given = parser.parse_args()
    failed = False
    with TemporaryDirectory(prefix="same-bits-") as name:
        before = installed(given.commit, Path(name))
        for title, text in STUDIES.items():
            if given.only in ("", title):
                old = swept(title, text, Path(name) / f"{title}-old", before)
                new = swept(title, text, Path(name) / f"{title}-new", None)
                lines = differences(old, new)
                failed |= bool(lines) or not new
                print(f"{title}: {len(new)} trials {'DIFFER' if lines else 'are the same to the bit'}", flush=True)
                print("".join(f"    {line}\n" for line in lines[:20]), end="", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

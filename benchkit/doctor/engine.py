"""What trains: PyTorch, the device, its precision, its rates, its compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchkit.doctor.diagnosis import Answer, Diagnosis, ask, scaled
from benchkit.sweep.devices import mps_runs

PATIENCE = 60.0
"""Seconds that PyTorch may take to answer, on a busy machine too."""

CARDS = Path("/proc/driver/nvidia/version")
"""There while an NVIDIA driver is loaded."""

FASTER = 1.2
"""From this ratio on, bf16 counts as faster than float32."""


def engine_findings(device: str) -> list[Diagnosis]:
    """Return what PyTorch tells of the device that `device` (auto, cpu, mps, cuda, cuda:N) means."""
    return findings_of(ask(["-m", "benchkit.doctor.measuring", device], PATIENCE), driver=CARDS.exists())


def findings_of(answer: Answer, *, driver: bool) -> list[Diagnosis]:
    """Return findings from what the measuring process told; `driver` says whether an NVIDIA driver is loaded."""
    values = answer.values
    if "torch" not in values:
        advice = "install PyTorch anew; see its installation page for this system"
        return [Diagnosis(name="PyTorch", state="bad", value=f"cannot be used: {answer.problem}", advice=advice)]
    findings = [Diagnosis(name="PyTorch", value=_version(values))]
    if "device" not in values:
        advice = "name a --device that is there, or mend its driver"
        return [*findings, Diagnosis(name="device", state="bad", value=f"none: {answer.problem}", advice=advice)]
    findings += [_device(values, driver), _precision(values), *_rates(answer), _compiler(values)]
    return findings + ([_sharing(), _energy(values)] if values["device"] != "cpu" else [])


def _version(values: Mapping[str, Any]) -> str:
    return f"{values['torch']}{', built for CUDA ' + values['cuda'] if values['cuda'] else ', built without CUDA'}"


def _device(values: Mapping[str, Any], driver: bool) -> Diagnosis:
    name = f"{values['device']}: {values.get('name', 'its name is not told')}"
    if values["device"] == "cpu" and driver:
        advice = "install a PyTorch that is built for the driver's CUDA, or give --device cpu to do without"
        return Diagnosis(name="device", state="bad", value=f"{name}; a GPU's driver is loaded, unused", advice=advice)
    if not values["memory"]:
        return Diagnosis(name="device", value=name)
    free = values.get("free", 0)
    memory = f"{values['memory'] / 2**30:.0f} GiB memory, {free / 2**30:.1f} GiB of it free"
    numbers = {"memory": float(values["memory"]), "free": float(free)}
    return Diagnosis(name="device", value=f"{name}, {memory}", numbers=numbers)


def _precision(values: Mapping[str, Any]) -> Diagnosis:
    if values["bf16"]:
        return Diagnosis(name="precision", value="auto computes in bf16, which the device has")
    advice = "nothing to do; newer processors and GPUs train up to twice as fast in bf16"
    if values.get("fp16"):
        value = (
            "auto computes in fp16, which the device has, where all steps of a study can be recorded, as "
            "far as that is known before training, else in float32"
        )
        advice = "nothing to do; train.precision = float32 rounds less"
        return Diagnosis(name="precision", state="note", value=value, advice=advice)
    value = "auto computes in float32: the device would only emulate bf16"
    return Diagnosis(name="precision", state="note", value=value, advice=advice)


def _rates(answer: Answer) -> list[Diagnosis]:
    values, findings = answer.values, []
    if rate := values.get("copy_rate"):
        value = f"{scaled(rate, 'B/s')} read and written"
        findings.append(Diagnosis(name="copy bandwidth", value=value, numbers={"copy": rate}))
    numbers = {name: values[f"{name}_rate"] for name in ("float32", "bf16") if f"{name}_rate" in values}
    shown = ", ".join(f"{name} {scaled(rate, 'FLOP/s')}" for name, rate in numbers.items())
    if len(numbers) == 2:
        on = f" on {values['threads']} threads" if values["device"] == "cpu" else ""
        told = Diagnosis(name="matrix rate", value=shown + on, numbers=numbers)
        if values["bf16"] and numbers["bf16"] < FASTER * numbers["float32"]:
            told = replace(told, state="note", advice="compare train.precision = float32; the machine may be busy now")
        return [*findings, told]
    value = f"{shown + '; ' if shown else ''}the measurement broke off: {answer.problem}"
    advice = "the device cannot be trusted to train: look at its driver and its memory"
    return [*findings, Diagnosis(name="matrix rate", state="bad", value=value, advice=advice, numbers=numbers)]


def _compiler(values: Mapping[str, Any]) -> Diagnosis:
    if values["compiler"]:
        return Diagnosis(name="compile support", value=f"{values['compiler']} found for torch.compile")
    advice = (
        f"install {values['lacking']}: long trials on a GPU, those with train.compile = always on a processor, and "
        "plugins that compile themselves are faster with it"
    )
    value = f"no compiler for torch.compile, which lacks {values['lacking']}"
    return Diagnosis(name="compile support", state="note", value=value, advice=advice)


def _sharing() -> Diagnosis:
    if mps_runs():
        return Diagnosis(name="trials at once", value="processes share the GPU by MPS, at the same time")
    advice = "start `nvidia-cuda-mps-control -d` before a sweep of small networks: the sweep finds out what it gains"
    return Diagnosis(name="trials at once", state="note", value="processes use the GPU by turns", advice=advice)


def _energy(values: Mapping[str, Any]) -> Diagnosis:
    if values["energy"]:
        return Diagnosis(name="energy", value="the device tells it; trials record it")
    advice = "install nvidia-ml-py to have trials record joules"
    return Diagnosis(name="energy", state="note", value="not told", advice=advice)

"""The device that a benchmark is to measure on; `python tests/peers/devices.py cuda` tells whether it is there."""

from __future__ import annotations

import argparse


def device(text: str) -> str:
    """Return a device by its name (auto, cpu, cuda, cuda:N); raise argparse's error where there is no such device."""
    from benchkit.errors import TrainingError
    from benchkit.train.device import resolve_device

    try:
        found = resolve_device(text)
    except TrainingError as error:
        raise argparse.ArgumentTypeError(f"{text}: there is no such device here ({error.hint})") from error
    return found.partition(":")[0] if text == "auto" else text


def main() -> None:
    """Print the name of the device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", type=device)
    named = parser.parse_args().device
    if named.startswith("cuda"):
        import torch

        named = torch.cuda.get_device_name(named)
    print(named)


if __name__ == "__main__":
    main()

"""A trained model as files: chosen (`choice`), described (`described`), written (`writing`), used (`prediction`).

Each name is imported from its own module; only `described`, `prediction` and `onnx_file` import torch.
"""

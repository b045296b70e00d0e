"""The optimizers of timm and PyTorch as plugins, each family by its entry point in the group `benchkit.optimizers`."""

"""Who takes the steps of a run, and how: eagerly, from a CUDA graph, or compiled, whichever is right and fastest."""

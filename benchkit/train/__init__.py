"""The training engine: one trial from data and settings to epoch records and scores.

`run.build_run` makes a run, `fit.fit` yields its epochs, `evaluate.finish` scores what it learnt, `checkpoint` and
`weights` keep it on disk. Each name is imported from its own module; `compiler`, `processor`, `selection` and
`weights_file` import no torch.
"""

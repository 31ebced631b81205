"""What computes.

build.py                from the configuration to the parts of a run
classifier.py           the LightningModule: the loss and the shared step
measurement.py          the metrics of an epoch (their meaning: records/metrics.py)
optimizers.py           parameter groups, and refused keys and values
muon.py                 Muon for matrices, AdamW for the rest
adapted.py              optimizers of pytorch_optimizer that need a change
averaging.py            optimizers that evaluate other weights than they train
schedulers.py           learning-rate schedules
checks.py               mistakes that are found before training
randomness.py           the random numbers of each step
provenance.py           hashes, versions, device, memory
plots.py                figures of one run
lightning_internals.py  all that leans on Lightning's internals
"""

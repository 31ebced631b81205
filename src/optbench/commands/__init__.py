"""What the user typed. Nothing here needs torch.

errors.py              errors as sentences
resolvers.py           the words in ${...}
resume.py              what resume=… means
recorded_overrides.py  what a recorded sweep may set
sweep.py               what a sweep prints
until_decided.py       a sweep that adds seeds by a plan
caller.py              where a command was typed
terminal.py            tables and log lines
hydra_internals.py     all that leans on Hydra's internals
"""

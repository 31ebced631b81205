"""A sweep's runs side by side on one machine: each has its own process and devices.

launch.py       what Hydra asks of a launcher: its jobs, and how they ended
composition.py  the configurations of the jobs
preload.py      what all runs need, loaded once before they are forked
devices.py      which devices there are, and which run has which
processes.py    starting, watching and stopping the processes; none outlives the one that started it
table.py        what a person sees meanwhile
"""

"""A sweep's runs side by side on one machine: a process and devices of its own for each.

sweep.py      what Hydra asks for, as commands; what became of them, for Hydra
devices.py    which devices there are, and who has which
processes.py  starting, watching and stopping the processes
display.py    what a person sees meanwhile
tether.py     why no process outlives the one that started it
"""

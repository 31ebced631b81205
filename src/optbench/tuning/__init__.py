"""Each optimizer at its best: search, shortlist, final. Nothing here needs torch.

command.py    what `python src/tune.py …` means
plan.py       settings, contestants and their spaces, checked before anything runs
space.py      a search space in Hydra's sweep syntax, and points drawn from it
decisions.py  what is chosen from scores: the shortlist, the winner, what is on an edge
phases.py     the phases, each a batch of runs that can resume
"""

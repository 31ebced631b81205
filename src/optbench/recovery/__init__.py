"""Stopping and resuming.

session.py     what surrounds a run: its folder's lock, signals, an earlier record, a record however it ends
checkpoint.py  checkpoints on disk; from which one a run resumes
signals.py     Ctrl-C, SIGTERM and SIGUSR1 wait for a checkpoint
"""

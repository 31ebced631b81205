"""What a run leaves, and the words for it. Nothing here needs more than the standard library.

record.py         summary.json
looks.py          looks at runs while more seeds may follow: looks.json, looks.csv
tuning.py         tuning.json
metrics.py        what each metric means: the place to add one
configuration.py  the configuration in a record
files.py          files written whole or not at all
wording.py        how values read
old_names.py      names of earlier versions
trust.py          what may be built from a record
"""

"""Hyperparameter searches: rounds of trials in processes of their own, on inner folds, that any crash only delays.

`leading` runs a study, `processes` a trial's process, `objective` says what a trial is worth, `folds` on which rows.
"""

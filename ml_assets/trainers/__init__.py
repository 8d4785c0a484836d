"""Trains estimators in rounds, so that a training can be saved on its way, resumed, and watched.

`kinds` says which estimators can, `rounds` is the loop, `warm_start`, `epochs` and `boosters` know the libraries,
`functions` is for teams' own train functions.
"""

from ml_assets.trainers.functions import Report, gpu_required

__all__ = ["Report", "gpu_required"]

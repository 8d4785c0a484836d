"""Dagster Components that teams instantiate in YAML or Python, and the loader of a team's folder."""

import gc

_ALLOCATIONS = 10_000
# By default Python looks for garbage at every 700 new objects. Modules and definitions are hundreds of thousands of
# objects that stay, and the collector would walk through them, and through Dagster's, again and again: a tenth of the
# CPU of each load. Set before the library itself is imported, which is a good part of it.
gc.set_threshold(max(gc.get_threshold()[0], _ALLOCATIONS), *gc.get_threshold()[1:])

from ml_assets.components.training_pipeline import TrainingPipeline  # noqa: E402

__all__ = ["TrainingPipeline"]

"""A Kubernetes cluster as the place of steps that need more than a run's own worker."""

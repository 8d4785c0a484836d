"""When things run: sensors over all pipelines of a code location."""

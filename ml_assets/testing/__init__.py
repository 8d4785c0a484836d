"""Fakes and conformance suites, one file for each interface; also for adapters written elsewhere."""

"""The interfaces of ml_assets implemented with the real world."""

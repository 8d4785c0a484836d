"""The command line `ml-assets`."""

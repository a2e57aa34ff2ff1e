"""Machines that are process trees on this computer: the embedded default. See `provider.py`."""

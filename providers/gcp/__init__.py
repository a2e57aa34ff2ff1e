"""Google Compute Engine. See `provider.py`."""

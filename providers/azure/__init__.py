"""Microsoft Azure: machines are virtual machines of one resource group. See `provider.py`."""

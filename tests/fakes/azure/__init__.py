"""A fake of Azure: resource manager, virtual machines, price list. Run it by hand with
`python -m tests.fakes.azure`."""

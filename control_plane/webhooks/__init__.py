"""Webhooks, signed: which come in and start jobs, which go out and tell of trouble."""

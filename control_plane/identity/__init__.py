"""Checking the proofs of machines that have no secret: one verifier for each cloud."""

"""Who comes in: people by tokens, CI systems by what their issuers sign."""

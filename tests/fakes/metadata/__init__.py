"""A fake of the metadata services that machines of the clouds ask about themselves."""

"""One module a page: read from the store, return a frozen presenter. Templates only draw it."""

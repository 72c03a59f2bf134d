"""Opening balances: what the books begin with when an older system's are taken over."""

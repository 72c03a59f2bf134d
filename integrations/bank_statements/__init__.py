"""Bank statements as banks send them (camt.053, MT940, CSV by a mapping), read in a stream into one shape."""

"""Partners' own settlement files, CSV in whatever shape, read by a mapping that is data."""

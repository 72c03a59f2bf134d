"""CSV in whatever shape somebody else writes it: how it is laid out is data, and faults are named by row and column."""

"""Benchmarks: each compares two things in one run on one machine, on embedded servers of its own."""

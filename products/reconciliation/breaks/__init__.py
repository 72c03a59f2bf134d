"""Breaks: what does not tie between the bank, the partners and the books, and how it is ended."""

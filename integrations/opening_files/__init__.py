"""Spreadsheets of balances: what an older system hands over."""

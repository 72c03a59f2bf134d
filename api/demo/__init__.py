"""`mizan demo`: a small world, ten thousand signed webhooks over HTTP, and what came of them, checked.

`world` says who there is, `events` what is sent and what must come of it, `sender` sends it, `books` compares what came
of it with what had to, `story` follows one member, `run` is the order of all that. Everything is decided by the seed;
dates are relative to the present day in UTC, so the same seed on the same day gives the same counts and balances.
"""

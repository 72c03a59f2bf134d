"""A past year replayed beside the live books: what Mizan would have made of it, and where the old system differs.

A shadow is a database of its own, on servers of its own. It knows nothing of the live deployment: not its environment variables, not its
`.env`, not its keys; and nothing leaves it: no events, no messages, no money on a rail.
"""

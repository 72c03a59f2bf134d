"""The reference page at `/app`: a member's account as a partner's app would show it. In the sandbox alone.

It plays the partner. Everything that it shows, it read through the public API over HTTP with tokens that any partner can get:
it holds a client and a key, vouches for a member, and renders what the API answers (`partner`, `page`). Only the example
that it makes on request (`example`) begins as a fund's staff would, with a partner and its key.
"""

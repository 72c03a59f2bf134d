"""The inbox: what partners send is stored in groups, kept encrypted, and processed once.

`received` → `group_commit` → `store`, then `wake_up` → `drain`; `keys` holds what bodies rest under, `queries` shows
and replays.
"""

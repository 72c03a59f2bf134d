"""`mizan demo`: the main job, end to end, on servers of its own."""

import typer


def add_to(app: typer.Typer) -> None:
    """Add this command to the tree."""

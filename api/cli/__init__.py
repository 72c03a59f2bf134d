"""The `mizan` command line: thin commands that call the same services as the API and the workers.

Each file is one group of commands. `session` gives them settings, services and errors; `output` the two ways to show
what they found: JSON for programs, tables and plain lines for people.
"""

from api.cli.app import main

__all__ = ["main"]

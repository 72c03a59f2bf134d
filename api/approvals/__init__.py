"""Two-person approval: one service, and the kinds of requests that it carries out."""

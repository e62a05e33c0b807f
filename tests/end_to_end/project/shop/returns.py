"""A module inside a package."""

from orders import flow  # noqa: F401

"""A package, so that there are modules with dots in their names."""

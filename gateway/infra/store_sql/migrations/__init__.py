"""How the tables came to be: one linear history, shipped with the package."""

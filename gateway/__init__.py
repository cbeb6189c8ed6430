"""gridgate: the open grid-integration gateway between grid parties and chargers."""

__version__ = "0.1.0"
__all__ = ["__version__"]

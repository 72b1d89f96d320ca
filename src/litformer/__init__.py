"""Every part of the Transformer family, built and explained in the book."""

__version__ = "0.1.0"

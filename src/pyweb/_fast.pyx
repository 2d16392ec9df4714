# cython: language_level=3
"""The library that has all compiled modules in it (_together.py). As a module it is empty."""

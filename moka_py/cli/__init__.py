"""The commands of `python -m moka_py`."""

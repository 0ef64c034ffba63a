"""The language in which an HTTP API is declared: pure values, read from TOML by `definition`.

docs/generic.md tells it key by key; `gateway/providers/generic.py` acts on it.
"""

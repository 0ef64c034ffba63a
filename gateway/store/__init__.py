"""The only code that knows SQL: tables, connections, the ledger that writes, and the reads."""

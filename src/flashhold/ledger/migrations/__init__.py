"""The ledger's schema, step by step. Each step is a SQL file beside a few lines that apply it."""

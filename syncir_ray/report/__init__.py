"""The report anyone can open: the funnel, the ledger, and rows of reference | query text | target."""

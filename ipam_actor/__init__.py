"""Tenants, networks, tags, addresses, endpoints and where they are bound: pure decisions, folded from the journal."""

"""Doors for machines: what speaks to programs that others wrote. Each is a thin front end; what it decides, it asks."""

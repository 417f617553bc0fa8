"""The protocol as data: what both twins read, written once."""

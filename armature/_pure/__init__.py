"""The pure-Python twins: the specification of the compiled ones, and what runs where those are not."""

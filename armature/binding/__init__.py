"""From a handler's signature to a compiled plan: everything about a parameter is decided before the first request."""

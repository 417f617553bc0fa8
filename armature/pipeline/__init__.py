"""One route's chain, folded once: middleware, binding, the handler, what it returns, and what becomes of errors."""

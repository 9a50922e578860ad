"""The recipe's schema, and the faults that a person can act on. Imports no torch: a fault is told in under a second."""

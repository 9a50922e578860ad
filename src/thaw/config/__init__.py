"""The schema of a recipe, its composition from YAML, and the problems that a user can fix. Imports no torch."""

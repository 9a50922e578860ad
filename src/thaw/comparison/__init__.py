"""Compare run directories: statistics, tables, HTML page. Imports no torch."""

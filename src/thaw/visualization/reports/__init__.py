"""HTML pages and tables on the terminal."""

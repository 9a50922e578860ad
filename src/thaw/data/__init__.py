"""Sources -> samples -> splits -> decoded images -> batches. Knows no network: preprocessing is handed in as values."""

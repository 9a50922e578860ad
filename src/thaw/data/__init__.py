"""Sources -> samples -> splits -> decoded images -> batches."""

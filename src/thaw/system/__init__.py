"""Files, processes, devices and the cache folder."""

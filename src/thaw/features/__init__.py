"""Features of a whole data set: made once, exported, classified."""

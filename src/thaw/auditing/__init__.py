"""Find what makes a comparison on a data set worthless: copies, wrong labels, shortcuts, leaks."""

"""X/Y/Z plots: one request over the values of up to three of its fields, as one labelled picture."""

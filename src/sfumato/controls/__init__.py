"""Pictures that say what is drawn, beside the words: made ready for control networks, and let act in a run."""

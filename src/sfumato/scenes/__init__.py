"""The drawn world: its vocabulary, scenes and captions, the renderer, and the reader that scores a picture."""

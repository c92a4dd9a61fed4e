"""`sftrl sample`: responses of a model, in a conversation or row by row."""

"""The verbs: their table, their functions, and the pages of help that they print."""

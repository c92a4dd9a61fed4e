"""Pictures: drawing cards and streets, and reading files. With Pillow and numpy alone: environments import it."""

"""One file a family of Hugging Face checkpoints, see families/__init__.py."""

"""Pictures of rows: contents in parts, and pictures that are decoded when a batch needs them."""

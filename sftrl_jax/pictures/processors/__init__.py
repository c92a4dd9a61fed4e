"""Pictures as a family of models reads them: tiles of fixed size, and the placeholders that stand for them in a text.

Results are those of transformers' processors with Pillow. A processor is made of the numbers in a model's config, which
reads them from the files beside its weights.
"""

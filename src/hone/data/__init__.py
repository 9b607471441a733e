"""From the user's files to batches: rows -> examples -> tokens and labels -> batches.

`sources.py` reads rows, `records.py` recognises them, `templates.py` spells prompts, `tokenizer.py` turns text into
ids. Nothing is imported here, so that naming the package costs nothing.
"""

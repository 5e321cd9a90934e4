"""From annotation files (or the sticker world) to typed samples and batches. Nothing here imports a
model."""

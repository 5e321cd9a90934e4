"""Published datasets into our files: `python -m train.prepare.<dataset> --out DIR`. Each module
says what it needs and writes.

Annotations are downloaded where their authors offer a direct link, or taken from `--raw DIR` where
the files lie already (or where a form must be signed first). Images and videos stay where they are;
entries name them relative to `data.media`.
"""

"""Flickr30K captions in Karpathy's split, as `train.prepare.coco`. Images come from the authors on
request.

python -m train.prepare.flickr30k --out data/flickr30k
"""

from train.prepare.coco import main
from train.prepare.common import run

if __name__ == "__main__":
    run(main, "flickr30k")

"""Train on ImageNet: a config in, a run folder out. The same as `vmoe train`.

python train_imagenet.py configs/imagenet/deit_small_self.yaml data.train=train.beton data.val=val.beton
torchrun --nproc_per_node=8 train_imagenet.py --config configs/imagenet/deit_small_self.yaml
"""

import sys

from vmoe.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

"""RandAugment and 3-Augment on the device: each image of a uint8 batch gets its own operations, as from timm and PIL.

Importing this package needs neither timm nor PIL; making an augmentation needs timm, whose tables it reads.
"""

from .augmentation import Augmentation, make_augmentation

__all__ = ["Augmentation", "make_augmentation"]
